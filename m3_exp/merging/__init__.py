"""A recipe -> a stream of tensors, for a checkpoint or a living engine (docs/merging.md). In the order of the data:

    source              what people write for a model, and where it lies
    layout, gguf_file   mapped reading of a directory, of a GGUF file
    adapters            a LoRA adapter on a base
    checkpoint          a model whatever its files, with a digest of its content; `quantised`: those that are refused
    model_config        config.json, and what must agree between models
    loading             what transformers would make of a checkpoint, asked in a child process (`loading_child`)
    tying               models that tie their head beside models that store one
    tokenizer           config, tokenizer and template that go along; `tokenizer_probe`: a child that tries one first
    tokens              vocabularies laid out by tokens, where models give them other rows
    mixtures            how much of each expert; `ratio`, `simplex`: where lambdas, and shares of more, come from
    parts, by_part      which tensors a part of a model is; ratios that differ from part to part; `part_words`
    notes               remarks on a recipe's adapters for whoever reads its plan
    canonical           recipes that mean the same weights become one
    bits                floats as files hold them, widened and rounded without torch
    scan, sparsify      whole-model thresholds, DARE masks; `kernels`, `compiled`: the compiled loops of all
    statistics          what some methods merge by, measured of each expert on calibration text
    methods             one merge method a file; `plugins` imports what yaml names
    gram, ranks, singular   what methods and sparsifiers of whole tensors compute with
    device              blocks made on a GPU, the same bytes
    jobs                a recipe by content with its models opened, and what makes its tensors
    fused               blocks of 16-bit models in one compiled loop
    blend               one block of several merges that share what they read
    check, stream       what is refused before a merge, and the stream itself
    write               several merges to disk, in one pass
    ahead               the files of the next merge, read into the page cache

Callers outside need `source`, `canonical` and `stream`.
"""
