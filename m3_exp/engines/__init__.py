"""Weights and prompts -> answers. An engine is a module of this folder, by its name: engine=vllm.

    protocol      what an engine and its module must provide; begin here to write one

The engines:
    vllm          a resident vLLM; `vllm_worker` is the part that runs inside its workers, the merge
    transformers  Hugging Face's own model and a plain decode loop; `transformers_model` is what its process runs
    recorded      answers from a file or another store; a rehearsal: `rehearsal` makes texts up, `pace` says when each
                  is there

What vllm and transformers share, from our process to theirs:
    resident      the engine as our process sees it, with guards on what was loaded
    process       the child process: start it, talk to it, notice a crash or a hang, kill all of it
    wire          what crosses, one JSON object a line
    child         the child's end, and what a model must do there
    weights       a model's names and shapes before it has weights, and the guard on what is streamed into it
    text          token ids -> text, and where a text ends

A trial of either on this machine, for `m3 doctor --engine`:
    trial         are exchanged weights those of a fresh start; `fresh_vllm`, `fresh_transformers` are the fresh ones

The machine:
    sharing       which GPUs or cores each engine gets
    gpus          what an engine would take and give on GPUs that are not at hand, for `m3 plan`
"""
