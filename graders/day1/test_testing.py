"""Hidden tests for the testing chapter. Each one is a kind of mistake that the student's test should notice."""

from autograder.execution.candidates import broken


class TestDetectsBrokenAttention:
    exercise = "detects_broken_attention"

    test_inverted = broken(
        "Your test notices a mask that is used the wrong way round.",
        "mask inverted",
        "mask inverted, large negative fill",
        "mask inverted, −inf fill",
    )
    test_ignored = broken("Your test notices a mask that is ignored.", "mask ignored")
    test_after_softmax = broken(
        "Your test notices a mask that is applied only after the softmax.",
        "weights masked after the softmax",
    )
    test_axis = broken(
        "Your test notices a softmax along the wrong axis.",
        "softmax over axis 1",
        "softmax over axis 1, filled with −inf",
        "softmax over axis 1, filled with −1e9",
    )
    test_scale = broken(
        "Your test notices scores with a wrong scale.",
        "not scaled",
        "divided by d",
        "multiplied by √d instead of divided",
        "scaled by √d_v",
        "scaled by √(number of keys)",
    )
    test_rows = broken(
        "Your test notices if a query gets the mask of another query.",
        "mask transposed",
        "last mask row used for all queries",
    )
    test_leak = broken(
        "Your test notices hidden keys that keep some weight.",
        "filled with −20",
        "scores multiplied by the mask",
        "boolean mask added to the scores",
    )
    test_no_keys = broken(
        "Your test notices a query without allowed keys whose weights and output are not 0.",
        "filled with −inf",
        "filled with −1e9",
        "filled with the dtype minimum",
        "fully masked rows zeroed in weights only",
    )
    test_gradients = broken(
        "Your test notices gradients that contain NaN.", "NaN replaced after the softmax"
    )
