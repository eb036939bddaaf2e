"""The reader of numbers: a table of texts and their values, by arithmetic and the habits of English and LaTeX."""

import time
from fractions import Fraction

import pytest

from evaluators.gsm8k import GSM8K
from m3_exp.scoring.numbers import last_number, one_number
from m3_exp.types import Answer, Problem

# Of a box: None where it says no number, more than one, or more than a number.
SIGNS: list[tuple[str, str | None]] = [
    ("– 5", "-5"), ("x = – 5", "-5"), ("--5", None), ("-+5", None), ("-\\dfrac{10}{2}", "-5"), ("$-$5", "-5"),
    ("28", "28"), ("28.0", "28"), ("28.", "28"), (" 28 ", "28"), ("028", "28"), ("-5", "-5"), ("\u22125", "-5"),
    ("\u20135", "-5"), ("\u20145", "-5"), ("－5", "-5"), ("﹣5", "-5"), ("\u20115", "-5"), ("\u20125", "-5"),
    ("- 5", "-5"), ("-\\,5", "-5"), ("{-}5", "-5"), ("-{5}", "-5"), ("(-5)", "-5"), ("\\text{-}5", "-5"),
    ("-\\$5", "-5"), ("\\$-5", "-5"), ("-$5", "-5"), ("$-5$", "-5"), ("\\text{minus } 5", "-5"),
    ("negative 5", "-5"), ("+5", "5"), ("x = -5", "-5"), ("x=-5", "-5"), ("\\mathbf{-5}", "-5"),
    ("\\text{\u2212}5", "-5"),
]  # fmt: skip
THOUSANDS: list[tuple[str, str | None]] = [
    ("1,234", "1234"), ("1{,}234", "1234"), ("1\\,234", "1234"), ("1 234", "1234"), ("1\u2009234", "1234"),
    ("1\u202f234", "1234"), ("1\xa0234", "1234"), ("1\\ 234", "1234"), ("1~234", "1234"), ("1\\;234", "1234"),
    ("1,\\!234", "1234"), ("1{,}\\!234", "1234"), ("1,234.00", "1234"), ("1,234.5", "2469/2"),
    ("1,234,567", "1234567"), ("1 234 567", "1234567"), ("1,23", None), ("12,34", None), ("1,2345", None),
    ("12 34", None), ("1234 5", None), ("1,234 5", None), ("1, 234", None), ("0,500", None),
    ("10,00,000", "1000000"), ("1.234", "617/500"), ("1.234.567", None), ("9 500", "9500"), ("9\\,500.00", "9500"),
    ("7\\,3", None), ("7 3", None), ("70 3", None),
]  # fmt: skip
TWO_NUMBERS: list[tuple[str, str | None]] = [
    ("2 \\text{ boxes and } 8 \\text{ pens}", None), ("2 \\text{ or } 8", None), ("2\\%8", None),
    ("2\\text{ }8", None), ("2\\!8", None), ("\\text{2}8", None), ("{2}{8}", None), ("2\\\\8", None),
    ("2\n8", None), ("2, 8", None), ("2;8", None), ("2-8", None), ("2\u20138", None), ("2 - 8", None),
    ("2 \\text{ to } 8", None), ("2:8", None), ("2/8", "1/4"), ("2 and 8", None), ("2\\quad 8", None),
    ("2\\cdot 8", None), ("2 \\times 8", None), ("2^8", None), ("2^{8}", None), ("2_8", None), ("28_{9}", None),
    ("28_{\\text{nine}}", None), ("28₉", None), ("2⁸", None),
]  # fmt: skip
UNITS: list[tuple[str, str | None]] = [
    ("28\\ \\mu\\text{m}", "28"), ("28\\ \\Omega", "28"), ("28\\ \\text{N}\\cdot\\text{m}", "28"), ("28 N·m", "28"),
    ("28\\;\\mathrm{m}\\cdot\\mathrm{s}^{-1}", "28"), ("28 cm$^2$", "28"), ("28\\mu", None), ("28^{{\\circ}}", "28"),
    ("28 \\text{ pens}", "28"), ("28\\ \\text{pens}", "28"), ("28 pens", "28"), ("28pens", "28"),
    ("\\textbf{28}", "28"), ("\\text{28}", "28"), ("\\text{28 pens}", "28"), ("\\mathrm{28}", "28"),
    ("\\mathbf{28}", "28"), ("\\mathbf{28\\text{ pens}}", "28"), ("{\\bf 28}", "28"), ("\\bf 28", "28"),
    ("**28**", "28"), ("__28__", "28"), ("**28** pens", "28"), ("\\boldsymbol{28}", "28"),
    ("\\underline{28}", "28"), ("\\textcolor{red}{28}", "28"), ("\\color{blue}28", "28"),
    ("\\left(28\\right)", "28"), ("\\displaystyle 28", "28"), ("28~\\text{pens}", "28"),
    ("28\\;\\text{pens}", "28"), ("28\\quad\\text{pens}", "28"), ("28\\,\\mathrm{km/h}", "28"), ("28 km/h", "28"),
    ("28\\text{ pens/day}", "28"), ("28 \\frac{\\text{km}}{\\text{h}}", None), ("28\\text{ cm}^2", "28"),
    ("28\\text{ cm}^{2}", "28"), ("28\\ \\mathrm{m}^3", "28"), ("28 m²", "28"), ("28 cm^2", "28"), ("28 m2", "28"),
    ("28 \\text{ pens per day}", "28"), ("28m", "28"), ("28 g", "28"), ("28x", None), ("28y", None), ("28 x", None),
    ("28k", None), ("28 K", None), ("28M", None), ("28i", None), ("x28", None), ("28!", None), ("28\\pi", None),
    ("28 \\pi", None), ("\\sqrt{28}", None), ("|28|", None), ("28\\%", "28"), ("28%", "28"), ("28 \\%", "28"),
    ("28 percent", "28"), ("28\\text{ percent}", "28"), ("\\$28", "28"), ("$28", "28"), ("\\$ 28", "28"),
    ("28\\$", "28"), ("€28", "28"), ("£28", "28"), ("28 €", "28"), ("28 USD", "28"), ("USD 28", "28"),
    ("USD28", "28"), ("US\\$28", "28"), ("\\pounds 28", "28"), ("\\text{\\$}28", "28"), ("\\text{\\$28}", "28"),
    ("\\$28 \\text{ dollars}", "28"), ("Rs. 28", "28"), ("\\$5,600.00", "5600"), ("\\$5\\,600", "5600"),
    ("28^\\circ", "28"), ("28^{\\circ}", "28"), ("28°", "28"), ("28^\\circ\\text{C}", "28"), ("28\\degree", "28"),
    ("28^{\\text{th}}", "28"), ("28^{th}", "28"), ("28th", "28"), ("28\\text{th}", "28"),
]  # fmt: skip
EQUATIONS: list[tuple[str, str | None]] = [
    ("f(3) = 28", "28"), ("C(8, 2) = 28", "28"), ("x(3) = 28", None), ("2(3) = 28", "28"), ("\\sim 28", "28"),
    ("7x4 = 28", "28"), ("7 x 4 = 28", "28"), ("x: 28", "28"), ("\\$20 + \\$8 = \\$28", "28"), ("7 x 4", None),
    ("x = 28", "28"), ("x=28", "28"), ("28 = x", "28"), ("x_1 = 28", "28"), ("n_{max}=28", "28"),
    ("\\text{Total} = 28", "28"), ("\\text{Total: } 28", "28"), ("Answer: 28", "28"), ("4 \\times 7 = 28", "28"),
    ("x = 4 \\times 7 = 28", "28"), ("4 \\times 7 = 28 \\text{ pens}", "28"), ("28 = 4 \\times 7", None),
    ("2x = 56", None), ("2x + 3 = 28", None), ("x + y = 28", None), ("x = 2, y = 8", None), ("x=2 or x=8", None),
    ("x \\ge 28", None), ("> 28", None), ("\\approx 28", "28"), ("27.8 \\approx 28", "28"), ("\\neq 28", None),
    ("\\text{not } 28", None), ("\\pm 28", None), ("±28", None), ("\\leq 28", None), ("x < 28", None),
    ("=28", "28"), ("P = 28", "28"),
]  # fmt: skip
FRACTIONS_AND_FORMS: list[tuple[str, str | None]] = [
    ("\\frac{56}2", "28"), ("\\frac5{10}", "1/2"), ("2\\frac{1}2", "5/2"),
    ("\\frac{56}{2}", "28"), ("\\dfrac{56}{2}", "28"), ("\\tfrac{56}{2}", "28"), ("\\frac82", "4"),
    ("\\frac 8 2", "4"), ("-\\frac{56}{2}", "-28"), ("\\frac{-56}{2}", "-28"), ("56/2", "28"), ("56 / 2", "28"),
    ("\\frac{1,000}{2}", "500"), ("7/0", None), ("\\frac{1}{0}", None), ("2 2/3", "8/3"), ("2\\frac{2}{3}", "8/3"),
    ("2\\ \\frac{2}{3}", "8/3"), ("-2\\frac{1}{2}", "-5/2"), ("2½", "5/2"), ("½", "1/2"), ("4 10/3", None),
    ("2 4/2", None), ("2\\frac{4}{2}", None), ("\\frac{x}{2}", None), ("\\frac{4 \\times 7}{2}", None),
    ("{56 \\over 2}", "28"), ("1/2/3", None), ("12/25/2020", None), ("2020-05-03", None), ("12:30", None),
    ("12:30 pm", None), ("3:4", None), ("[2,5)", None), ("(1,2)", None), ("(2, 5)", None), ("\\{28\\}", "28"),
    ("[28]", "28"), (".5", "1/2"), ("0.5", "1/2"), ("-.5", "-1/2"), ("5.", "5"), ("2.8e1", "28"), ("2.8E+1", "28"),
    ("2.8 \\times 10^1", "28"), ("2.8\\times 10^{1}", "28"), ("2.8 × 10¹", "28"), ("280e-1", "28"),
    ("1e999999999", None), ("28e", None), ("1000(26)", "26000"), ("28 (twenty-eight)", "28"), ("28 (4 × 7)", None),
    ("28 \\text{ and a half}", None), ("28 \\text{ thousand}", "28000"), ("1.5 \\text{ million}", "1500000"),
    ("28 million dollars", "28000000"), ("\\text{twenty-eight}", None), ("yes", None), ("", None),
    ("\\text{ }", None), ("1/2 \\text{ of } 28", None), ("28 \\text{ out of } 30", None), ("٢٨", "28"),
    ("２８", "28"), ("1，234", "1234"), ("28\\text{ (pens)}", "28"), ("\\#28", "28"), ("28\\ldots", None),
    ("27.\\overline{9}", None), ("0.\\overline{3}", None), ("\\therefore 28", "28"), ("28 \\text{ t-shirts}", "28"),
    ("\\text{t-shirts: } 28", "28"), ("4x7", None), ("4*7", None), ("28*", "28"), ("2**3", None), ("28,", "28"),
    ("\\boxed{28}", "28"), ("5'10", None), ("5'10\"", None), ("A = 28\\text{ cm}^2", "28"),
    ("\\text{Day 5: } 28", None), ("\\text{Cost of 5 pens} = 28", "28"), ("28 \\text{ a day}", "28"),
    ("99999999999999999999999999999999999999999999999999", "99999999999999999999999999999999999999999999999999"),
    ("28\\text{ m/s}^2", "28"), ("28 \\text{ s}^{-1}", "28"), ("28\\, \\Omega", "28"), ("a+b=28", None),
    ("28.5.", "57/2"), ("1e3", "1000"), ("- \\$5", "-5"), ("28 & ", "28"),
    ("\\begin{array}{c}28\\end{array}", None),
]  # fmt: skip

# Of a whole answer: None where its last digits have no single value.
LAST: list[tuple[str, str | None]] = [
    ("The answer is 26.00", "26"), ("so 9 500 pens.", "9500"), ("pays \\$5,600.00.", "5600"), ("It is 28.", "28"),
    ("$28.$", "28"), ("is **28**.", "28"), ("**Answer: 28**", "28"), ("It is $28$.", "28"), ("costs $28.", "28"),
    ("is 28%", "28"), ("is 28\\%.", "28"), ("-5", "-5"), ("is -5.", "-5"), ("is \u22125", "-5"),
    ("temperature is \u20135\xb0C", "-5"), ("answer\u20145", "5"), ("- 5 pens", "5"), ("* 5 pens", "5"),
    ("a\n- 5", "5"), ("Total - 5", "5"), ("10 - 5 = 5", "5"), ("10-5=5", "5"), ("10 - 5", None), ("4 × 7", None),
    ("4 + 7", None), ("4 * 7 = 28", "28"), ("28 pens and 3", "3"), ("2 or 3", "3"), ("1, 2", "2"),
    ("pages 1,2", None), ("1,2", None), ("range 3-5", None), ("ratio 3:4", None), ("at 12:30", None),
    ("\\frac{56}{2}", "28"), ("is 56/2", "28"), ("2 2/3", "8/3"), ("x_1", None), ("x_1 = 28", "28"),
    ("28 m^2", "28"), ("28 m²", "28"), ("10^3", None), ("#### 28", "28"), ("####28", "28"), ("#### 1,250", "1250"),
    ("\\boxed{28}", "28"), ("A: 18", "18"), ("<<4*7=28>>28", "28"), ("28</s>", "28"), ("28<|im_end|>", "28"),
    ("no number", None), ("", None), ("COVID-19", "19"), ("B12", None), ("on the 28th", "28"), ("28!", "28"),
    ("28?", "28"), ("(28)", "28"), ("`28`", "28"), ("\"28\"", "28"), ("28 million", "28000000"),
    ("1000(26)", "26000"), ("2516_8", None), ("v1.2", None),
    ("28 and a half", None), ("No.5", "5"), ("US$28", "28"), ("Rs.28", "28"),
    ("€28", "28"), ("共28个", "28"), ("28\n", "28"), ("28\n\n", "28"), ("is 28 (see above)", "28"), ("2**3", None),
    ("She has 28 left ...", "28"), ("5 % 2", "2"), ("1.234.567", None), ("$-5", "-5"), ("-$5", "-5"),
    ("12/25/2020", None), ("= 28 \\text{ cm}^2", "28"), ("\\sqrt{16}", None), ("\\sqrt{16} = 4", "4"),
    ("= \\frac{4 \\times 7}{2}", None), ("[28]", "28"), ("28 km/h", "28"), ("20 -5 = 15", "15"),
    ("The answer is:28", "28"), ("1. 28", "28"), ("so x=28", "28"), ("3.", "3"), ("$1,234$", "1234"),
    ("1{,}234", "1234"), ("1\\,234", "1234"), (".5", "1/2"), ("2.8 × 10^3", "2800"),
]  # fmt: skip


@pytest.mark.parametrize(("box", "value"), [*SIGNS, *THOUSANDS, *TWO_NUMBERS, *UNITS, *EQUATIONS, *FRACTIONS_AND_FORMS])
def test_the_one_number_of_a_box(box: str, value: str | None) -> None:
    number = one_number(box)
    assert (None if number is None else number.value) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(("text", "value"), LAST)
def test_the_last_number_of_an_answer(text: str, value: str | None) -> None:
    number = last_number(text)
    assert (None if number is None else number.value) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1,234.00", "1234"), ("2 2/3", "2 2/3"), ("-1.50", "-1.50"), ("\\frac{56}{2}", "28"), ("1e3", "1000")],
)
def test_whole_numbers_are_shown_as_integers_and_others_as_they_stand(text: str, shown: str) -> None:
    assert str(one_number(text)) == str(last_number(text)) == shown


HOSTILE = ["9", "1 ", "1,", "1 2/", "-", "_", "*", " ", "$", "{", "\\", "\\frac{", "\\frac{1}{", "^{", "^ ", "= ",
           "4 × ",
           "\\text{", "- ", "{1 \\over ", "\\hspace{", "1e", "1(", "minus ", "½", "\ud800", "٢", "x^"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("part", HOSTILE)
def test_no_text_takes_long(part: str) -> None:
    start = time.process_time()
    text = part * (60_000 // len(part))
    last_number(text)
    last_number(f"^{text}")
    one_number(text)
    one_number(text[:1000])
    assert time.process_time() - start < 3


def test_huge_numbers_and_exponents_are_none() -> None:
    assert one_number("9" * 401) is None
    assert one_number("9" * 400) is not None
    assert last_number("It is 1e401") is None
    assert last_number("It is " + "1," * 300 + "000") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 1250.00", 1.0), ("pays \\$1,250.00.", 1.0), ("is 1 250 pens.", 1.0), ("$\\frac{2500}{2}$", 1.0),
        ("**1250**", 1.0), ("1250.5", 0.0), ("12,50", 0.0), ("of 1250 she keeps 3", 0.0), ("none", 0.0),
    ],
)  # fmt: skip
def test_last_number_as_an_extractor(text: str, value: float) -> None:
    problem = Problem("0", {"question": "?", "answer": "#### 1,250"})
    assert GSM8K(extractor="last_number").score([problem], [Answer("0", text)])[0].value == value
