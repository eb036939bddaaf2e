"""The border: whatever someone else may have written is read here, bounded and typed, or refused in one line.

    files        bytes, text, lines and JSON of a file
    typed        JSON values as pydantic models
    yaml_files   YAML, before Hydra or OmegaConf see it
    paths        paths as people write them (`~`)
    patterns     regular expressions that came with a file, within a time limit
    records      the store's own records, with checksums
    scores       the scores of a result, column by column
    shown        text that others wrote, escaped for a terminal

What a value means to the project is decided by whoever asked for it.
"""
