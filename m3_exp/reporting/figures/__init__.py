"""Pictures of the store's results.

catalogue.py            each figure by name: which sweeps it draws, and how
frames.py, paper.py     the rows that a marker stands for; the paper's figures made of them
choosing.py             the ways of choosing beside a curve or triangle
dots.py                 points with intervals -> dot charts
ternary.py              the triangle of three experts: surface, winning region, marks
heatmap.py, responses.py E - plain by alpha and benchmark; scores along lambda
ablation.py             which ranges of layers carry the gain
palette.py              colours, markers, sizes and files: the one owner of how pictures look
"""
