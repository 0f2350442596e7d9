"""The end of a trace: a function did what its record cannot express."""


class TraceEnded(BaseException):
    """Its text is half a sentence: what the function did, and what would work.

    It is no `Exception`, so that a function that catches all of these cannot go on with half a record.
    """


ONE_VALUE = (
    "it asks one question of a whole column (if, and, or, not); a column has a value per row: "
    "use numpy.where, &, | and ~"
)
ALL_ROWS = "{what} depends on the other rows, of which a request has any number; give the number that training found"
