"""Statistics of an expert on calibration text, measured once and stored by content: what some methods merge by.

    text        the calibration text: read, and cut into sequences of token ids
    wanted      which statistics a recipe needs, and the key of each
    layered     a transformers model of which one decoder layer at a time has weights
    cost        what that takes, by headers
    measuring   grams and fisher, layer by layer; what is measured already is not measured again
    kept        a statistic as the store has it
    process     the measuring, in a process of its own (`child`)

    grams       of each linear layer in the decoder layers: the mean of x x^T over the tokens, x being its input
    fisher      of each parameter: the mean, over the sequences, of the squared gradient of the log-likelihood

`wanted.wanted(recipe, store)` says what a recipe needs, `process.ensure` measures what of it is missing.
"""
