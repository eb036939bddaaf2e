"""How a maths problem is put to a chat model (`chat_template=true`): with the form that `paper` looks for."""

MATH_REQUEST = (
    "{}\n\nThink step by step. Then give the final answer on a last line of exactly this form, with nothing after it:\n"
    "The answer is: ANSWER"
)
