"""Weights and prompts -> answers. `engine=NAME` is the module NAME of this folder.

protocol       what an engine must provide
vllm           a resident vLLM; `vllm_worker`: the merge inside its workers
transformers   where vLLM cannot be installed
recorded       answers from a file or another store

resident       an engine that lives in a child process: what the first two start
process        our end of that process; `child`: its own end; `wire`: the lines between them
weights        the model before it has weights, and the check of the stream that fills it
text           token ids -> text, and where an answer ends
sharing        GPUs and cores shared among the engines of a machine
gpus           data sheets, for forecasts
"""
