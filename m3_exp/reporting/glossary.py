"""Ten words that tables, figures and commands use: the README has them, and the page shows them."""

WORDS = {
    "cell": "one merge on one benchmark: what is evaluated, stored and counted.",
    "recipe": "what determines one set of weights: base, experts, method, their shares, number format.",
    "plain": "a method without M3 ('no M3' in tables): every expert with the method's own fixed share.",
    "lambda": "the first expert's share of a merge of two, from 0 to 1. Three experts and more have a mixture: a share"
    " each.",
    "alpha": "M3 draws lambda from Beta(alpha, alpha), a mixture from Dirichlet(alpha, ..., alpha): a small alpha gives"
    " mostly one expert, a large one about the same of each.",
    "draw, mask": "one lambda or mixture that was drawn; one random choice of the changes that DARE drops.",
    "node": "a fixed lambda or mixture at which a merge was evaluated, so that a curve goes through it. Between nodes,"
    " sampled mixtures, taken at random, correct the curve.",
    "expectation, E": "the mean score over all draws of an alpha, read off that curve; E* where no sampled mixtures"
    " correct it.",
    "▲ ▼ ≈ = / bold": "better, worse, not told apart from the same row without M3 (tested item by item, adjusted for"
    " the number of tests); the same weights; nothing to show. Bold: better than every other row of its pair.",
    "development items, cross-fitted": "items for choosing that are not the test's; without them, what is chosen on one"
    " half of the items is scored on the other, both ways round.",
}
