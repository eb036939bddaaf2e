"""Every interval, test and adjustment, below whatever scores and reports (docs/statistics.md).

    scored       scores of single answers -> what each item counts in a result
    unread       zeros that are no zeros: results of which most answers hold nothing to read
    estimate     Estimate, a number with its interval; the mean of items, with every source of its uncertainty
    paired       the difference of two models on the same items
    ratio        PDR, the performance drop rate under an attack, and the difference of two
    expectation  scores at evaluated mixtures -> the expected score of every alpha, for any number of experts
    lambdas      the same along the lambda of two experts
    simplex      over the lattice of three
    fitted       over designed points of four and more: a fit, which draws correct
    turning      observed draws beside what is interpolated between nodes
    joint        several benchmarks as one number: their mean and their minimum, relative to the better parent
    superiority  does a merge beat the better single model, on average over benchmarks and in the worst of them
    objective    what a choice of lambda makes large, and what choosing is worth on other items
    choosing     one of several candidates chosen by items, and what the chosen one is worth
    noise        what repeating an evaluation changes: flips, and the noise floor of a difference
    published    a score beside one that was published without its answers
    family       many comparisons at once: adjusted p-values, what could have been found
    roots        where a function of one number is zero
    resampling   item weights for halving and resampling items

Values are shares from 0 to 1 (differences from -1 to 1) unless a docstring says percent.
"""
