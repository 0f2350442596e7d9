"""Runs a model's program over the rows of a matrix: one row alone, or `LANES` rows side by side.

A row's answer is the same in either way, and whatever rows are beside it, as far as onnxruntime's own is: the one exception
is a product of matrices, where a single row is summed in another order (`layout.IS_TRANSPOSED_ALONE`).
Positions are those that `program` wrote; nothing here checks them, and no number of a row is ever a position.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from penstock_server.compiled_models import layout
from penstock_server.compiled_models.kernels import forest
from penstock_server.compiled_models.kernels.forest import LaneNodes, Nodes, Sums
from penstock_server.compiled_models.kernels.lanes import each, fused, load, plus, store
from penstock_server.compiled_models.kernels.mathematics import fused as fused_alone
from penstock_server.compiled_models.kernels.mathematics import (
    logistic,
    logistic_of_score,
    max_of,
    softmax,
    softmax_but_zeros,
    softmax_of_scores,
    softmax_of_two,
)
from penstock_server.kernels.base import INT64, POINTER, carray, entry_point, inlined, kernel, pointer, spliced

_U: Final[Any] = np.uint64
_F: Final[Any] = np.float32
_LANES: Final[Any] = np.uint64(layout.LANES)
_NO_SUM: Final = _F(0.0)
_ANY_SIZE: Final = 1 << 40


class Memory(NamedTuple):
    """A block of memory as numbers of each type."""

    words: Any
    reals: Any
    singles: Any
    halves: Any


class Outs(NamedTuple):
    """Where the outputs go."""

    one: Memory
    two: Memory
    three: Memory


class Rows(NamedTuple):
    """Which rows are computed: from which one on, how many, of how many, and in how many lanes."""

    first: Any
    count: Any
    all: Any
    lanes: Any


@inlined
def single_at(position: int) -> Any:
    """Which of the float32s of scratch memory is at a position."""
    return _U(position) >> _U(2)


@inlined
def word_at(position: int) -> Any:
    """Which of the 64-bit numbers of scratch memory is at a position."""
    return _U(position) >> _U(3)


@kernel
def fill(matrix: Any, width: Any, columns: Any, count: Any, rows: Rows, values: Any) -> bool:
    """Copies columns of the input; whether one of the numbers is NaN."""
    has_nan = False
    for at in range(count):
        column = _U(columns[at])
        for row in range(rows.count):
            value = matrix[(rows.first + row) * width + column]
            has_nan |= value != value  # noqa: PLR0124 - NaN alone
            values[at * rows.lanes + row] = value
    return has_nan


@kernel
def spill(values: Any, width: Any, rows: Rows, out: Any) -> None:
    """Copies a value into an output."""
    for row in range(rows.count):
        for column in range(width):
            out[(rows.first + row) * width + column] = values[column * rows.lanes + row]


@kernel
def add_up(
    program: Memory, scratch: Memory, at: Any, bounds: Any, block: Any, sums: Any, rows: Rows, has_nan: bool
) -> None:
    """The sums of the leaves of all trees; `bounds` is the program as numbers of the trees' type."""
    words = program.words
    count, outputs = _U(words[at + _U(layout.TREE_COUNT)]), _U(words[at + _U(layout.WIDTH)])
    trees = words[_U(words[at + _U(layout.TREE_TABLE)]) :]
    nodes = _U(words[at + _U(layout.NODES)])
    shift = _U(words[at + _U(layout.KIND)] == layout.DOUBLE)
    own = Nodes(
        program.halves[nodes << shift :],
        bounds[nodes:],
        shift,
        program.halves[_U(words[at + _U(layout.NODE_FLAGS)]) :],
        program.halves[_U(words[at + _U(layout.NODE_LEAVES)]) :],
    )
    masks = _U(words[at + _U(layout.LANE_MASKS)])
    lanes = LaneNodes(
        program.halves[_U(words[at + _U(layout.LANE_FEATURES)]) :],
        bounds[_U(words[at + _U(layout.LANE_BOUNDS)]) :],
        program.halves[_U(words[at + _U(layout.LANE_FLAGS)]) :],
        words[masks:],
        program.halves[_U(2) * masks :],
        bounds[_U(words[at + _U(layout.VALUES)]) :],
    )
    places = scratch.halves[single_at(words[at + _U(layout.PLACES)]) :]
    totals = Sums(sums, places, outputs)
    is_careful = has_nan and words[at + _U(layout.HAS_MISSING)] != 0
    for place in range(outputs * rows.lanes):
        sums[place] = 0.0
    if rows.lanes != 1:
        if is_careful:
            forest.add_lanes_carefully(trees, count, own, lanes, block, totals, rows.count)
        else:
            forest.add_lanes(trees, count, own, lanes, block, totals, rows.count)
    elif words[at + _U(layout.WALK_TABLE)] == layout.NONE:
        if is_careful:
            forest.add_dense(trees, count, lanes, block, sums, True)
        else:
            forest.add_dense(trees, count, lanes, block, sums, False)
    else:
        walks, padded = words[_U(words[at + _U(layout.WALK_TABLE)]) :], _U(words[at + _U(layout.WALK_COUNT)])
        if is_careful:
            forest.walk_carefully(walks, padded, own, block, places)
        else:
            forest.walk(walks, padded, own, block, places)
        forest.add_leaves(trees, count, own, lanes.values, totals)


@kernel
def settle(program: Memory, at: Any, tables: Any, sums: Any, rows: Rows) -> None:
    """Averages the sums, and adds each one's base."""
    words = program.words
    divisor, first = words[at + _U(layout.DIVISOR)], words[at + _U(layout.BASES)]
    for output in range(_U(words[at + _U(layout.WIDTH)])):
        for place in range(output * rows.lanes, output * rows.lanes + rows.lanes):
            if divisor != layout.NONE:
                sums[place] = sums[place] / tables[_U(divisor)]
            if first != layout.NONE:
                sums[place] = sums[place] + tables[_U(first) + output]


@kernel
def classify_two(program: Memory, at: Any, sums: Any, bases: Any, labels: Any, out: Any, rows: Rows) -> None:
    """Two classes from their sums: `onnxruntime`'s rules, which depend on which leaves there are, and on the bases."""
    words, one = program.words, bases[_U(2)]
    base_count, transform = words[at + _U(layout.BASE_COUNT)], words[at + _U(layout.TRANSFORM)]
    has_second, is_binary = words[at + _U(layout.HAS_SECOND)] != 0, words[at + _U(layout.IS_BINARY)] != 0
    is_positive = words[at + _U(layout.IS_POSITIVE)] != 0
    for lane in range(rows.lanes):
        other = rows.lanes + lane
        first, second = sums[lane], sums[other]
        if base_count == 2:
            if has_second:
                second = bases[_U(1)] + first
                first = -second
            else:
                first = first + bases[_U(0)]  # and a class that nobody votes for stays at 0
        elif base_count == 1:
            first = first + bases[_U(0)]
        decides = second if has_second else first
        bound = 0.5 if is_binary and is_positive else 0.0
        labels[lane] = decides > bound
        if has_second or base_count == 2:
            if transform == layout.LOGISTICS:
                out[lane], out[other] = logistic_of_score(_F(first)), logistic_of_score(_F(second))
            else:
                sums[lane], sums[other] = first, second
                if transform == layout.SOFTMAXES:
                    softmax_of_scores(sums[lane:], _U(2), rows.lanes)
                elif transform == layout.SOFTMAXES_BUT_ZEROS:
                    softmax_but_zeros(sums[lane:], _U(2), rows.lanes)
                out[lane], out[other] = _F(sums[lane]), _F(sums[other])
        elif transform == layout.LOGISTICS:
            out[lane], out[other] = logistic_of_score(_F(-first)), logistic_of_score(_F(first))
        elif is_binary and is_positive:
            out[lane], out[other] = _F(one - first), _F(first)
        else:
            out[lane], out[other] = _F(-first), _F(first)


@kernel
def largest(values: Any, width: Any, lanes: Any, is_last: bool, labels: Any) -> None:
    """The place of each row's largest number."""
    for lane in range(lanes):
        best, place = values[lane], np.int64(0)
        for column in range(_U(1), width):
            value = values[column * lanes + lane]
            if value > best or (is_last and value == best):
                best, place = value, np.int64(column)
        labels[lane] = place


@kernel
def transform_scores(scores: Any, width: Any, lanes: Any, transform: int) -> None:
    """The probabilities of scores, in place."""
    if transform == layout.LOGISTICS:
        for place in range(width * lanes):
            scores[place] = logistic_of_score(_F(scores[place]))
    elif transform == layout.SOFTMAXES:
        for lane in range(lanes):
            softmax_of_scores(scores[lane:], width, lanes)
    elif transform == layout.SOFTMAXES_BUT_ZEROS:
        for lane in range(lanes):
            softmax_but_zeros(scores[lane:], width, lanes)


@kernel
def combine(operation: int, one: Any, step: Any, other: Any, other_step: Any, to: Any, width: Any, lanes: Any) -> None:
    """Arithmetic between two values, each of which has a column for each, or one for all: then its step is 0."""
    for column in range(width):
        for lane in range(lanes):
            a, b = one[column * step * lanes + lane], other[column * other_step * lanes + lane]
            if operation == layout.ADD:
                found = a + b
            elif operation == layout.SUBTRACT:
                found = a - b
            elif operation == layout.MULTIPLY:
                found = a * b
            else:
                found = a / b
            to[column * lanes + lane] = found


@kernel
def spread(table: Any, to: Any, width: Any, lanes: Any) -> None:
    """A constant for every row."""
    for column in range(width):
        for lane in range(lanes):
            to[column * lanes + lane] = table[column]


@kernel
def copy(source: Any, to: Any, count: Any) -> None:
    for place in range(count):
        to[place] = source[place]


@kernel
def normalise(values: Any, width: Any, lanes: Any, norm: int) -> None:
    """Divides each row by its norm, in place."""
    for lane in range(lanes):
        if norm == layout.MAXIMUM:
            size = _F(np.finfo(np.float32).min)
            for column in range(width):
                size = max_of(values[column * lanes + lane], size)
        else:
            size = _NO_SUM
            for column in range(width):
                value = values[column * lanes + lane]
                size += abs(value) if norm == layout.ABSOLUTE else value * value
        if size != _NO_SUM:
            for column in range(width):
                value = values[column * lanes + lane]
                if norm == layout.SQUARE:
                    root = np.sqrt(value * value / size)
                    values[column * lanes + lane] = -root if value < _NO_SUM else root
                else:
                    values[column * lanes + lane] = value / size


@kernel
def multiply_lanes(weights: Any, addends: Any, values: Any, to: Any, terms: Any, width: Any, block: Any) -> None:
    """The product of lanes with a matrix: each sum takes one term after the other, rounded once with its multiplication."""
    for column in range(width):
        total = each(addends[column])
        for first in range(_U(0), terms, block):
            part = each(_NO_SUM)
            for term in range(first, min(first + block, terms)):
                part = fused(load(values, term * _LANES), weights[term * width + column], part)
            total = plus(part, total)
        store(to, column * _LANES, total)


@kernel
def multiply_row(weights: Any, addends: Any, values: Any, to: Any, terms: Any, width: Any, block: Any) -> None:
    """The same for one row, in the same order."""
    for column in range(width):
        to[column] = addends[column]
    for first in range(_U(0), terms, block):
        for column in range(width):
            part = _NO_SUM
            for term in range(first, min(first + block, terms)):
                part = fused_alone(values[term], weights[term * width + column], part)
            to[column] = part + to[column]


@inlined
def folded(partial: Any, at: Any, form: Any) -> Any:
    """Four of eight partial sums, as many columns at once add them up: four, two or one."""
    if form == 4:
        return ((partial[at] + partial[at + _U(1)]) + partial[at + _U(2)]) + partial[at + _U(3)]
    return (partial[at] + partial[at + _U(1)]) + (partial[at + _U(2)] + partial[at + _U(3)])


@kernel
def multiply_alone(weights: Any, addends: Any, values: Any, to: Any, terms: Any, width: Any, partial: Any) -> None:
    """The product of a single row with a transposed matrix: eight partial sums, each product rounded before it is added."""
    for column in range(width):
        for lane in range(_U(8)):
            partial[lane] = _NO_SUM
        for term in range(terms):
            partial[term & _U(7)] += values[term] * weights[term * width + column]
        fours = width - (width & _U(3))
        if column >= fours and column - fours < (width & _U(2)):
            even = (partial[_U(0)] + partial[_U(2)]) + (partial[_U(4)] + partial[_U(6)])
            odd = (partial[_U(1)] + partial[_U(3)]) + (partial[_U(5)] + partial[_U(7)])
            total = even + odd
        else:
            form = _U(4) if column < fours else _U(1)
            total = folded(partial, _U(0), form) + folded(partial, _U(4), form)
        to[column] = total + addends[width + column]


@spliced
def multiply(program: Memory, scratch: Memory, at: Any, rows: Rows) -> None:
    """A product of matrices, in float32."""
    words = program.words
    terms, width = _U(words[at + _U(layout.TERMS)]), _U(words[at + _U(layout.WIDTH)])
    weights = program.singles[_U(words[at + _U(layout.WEIGHTS)]) :]
    addends = program.singles[_U(words[at + _U(layout.ADDENDS)]) :]
    values = scratch.singles[single_at(words[at + _U(layout.FROM)]) :]
    to = scratch.singles[single_at(words[at + _U(layout.TO)]) :]
    block = _U(words[at + _U(layout.BLOCK)])
    if rows.lanes != 1:
        multiply_lanes(weights, addends, values, to, terms, width, block)
    elif rows.all == 1 and words[at + _U(layout.IS_TRANSPOSED_ALONE)] != 0:
        multiply_alone(weights, addends, values, to, terms, width, scratch.singles)
    else:
        multiply_row(weights, addends, values, to, terms, width, block)


@spliced
def convert(scratch: Memory, from_kind: int, kind: int, start: int, end: int, count: Any) -> None:
    """A value as another type."""
    if kind == layout.SINGLE and from_kind == layout.DOUBLE:
        copy(scratch.reals[word_at(start) :], scratch.singles[single_at(end) :], count)
    elif kind == layout.SINGLE:
        copy(scratch.words[word_at(start) :], scratch.singles[single_at(end) :], count)
    elif from_kind == layout.SINGLE:
        copy(scratch.singles[single_at(start) :], scratch.reals[word_at(end) :], count)
    else:
        copy(scratch.words[word_at(start) :], scratch.reals[word_at(end) :], count)


@kernel
def store_output(scratch: Memory, kind: int, start: int, width: Any, rows: Rows, out: Memory) -> None:
    """Copies a value into an output."""
    if kind == layout.SINGLE:
        spill(scratch.singles[single_at(start) :], width, rows, out.singles)
    elif kind == layout.DOUBLE:
        spill(scratch.reals[word_at(start) :], width, rows, out.reals)
    else:
        spill(scratch.words[word_at(start) :], width, rows, out.words)


@spliced
def run_trees(program: Memory, scratch: Memory, at: Any, rows: Rows, has_nan: bool) -> None:
    words = program.words
    start, end = words[at + _U(layout.FROM)], words[at + _U(layout.TO)]
    if words[at + _U(layout.KIND)] == layout.SINGLE:
        values, sums = scratch.singles[single_at(start) :], scratch.singles[single_at(end) :]
        add_up(program, scratch, at, program.singles, values, sums, rows, has_nan)
        settle(program, at, program.singles, sums, rows)
    else:
        reals, totals = scratch.reals[word_at(start) :], scratch.reals[word_at(end) :]
        add_up(program, scratch, at, program.reals, reals, totals, rows, has_nan)
        settle(program, at, program.reals, totals, rows)


@spliced
def run_scores(program: Memory, scratch: Memory, at: Any, rows: Rows) -> None:
    """Probabilities of scores, of trees and linear models."""
    words, lanes = program.words, rows.lanes
    end, width, kind = words[at + _U(layout.TO)], _U(words[at + _U(layout.WIDTH)]), words[at + _U(layout.KIND)]
    singles, reals = scratch.singles[single_at(end) :], scratch.reals[word_at(end) :]
    operation, transform = words[at + _U(layout.OPERATION)], words[at + _U(layout.TRANSFORM)]
    if operation == layout.SCORES:
        if kind == layout.SINGLE:
            transform_scores(singles, width, lanes, transform)
        else:
            transform_scores(reals, width, lanes, transform)
    elif operation == layout.CLASSES_OF_TWO:
        start, bases = words[at + _U(layout.FROM)], _U(words[at + _U(layout.BASES)])
        labels = scratch.words[word_at(words[at + _U(layout.LABEL)]) :]
        if kind == layout.SINGLE:
            classify_two(
                program, at, scratch.singles[single_at(start) :], program.singles[bases:], labels, singles, rows
            )
        else:
            classify_two(program, at, scratch.reals[word_at(start) :], program.reals[bases:], labels, singles, rows)
    elif operation == layout.SOFTMAX and kind == layout.DOUBLE:
        softmax_of_two(reals, lanes)
    elif operation == layout.SOFTMAX:
        count, lowest = _U(words[at + _U(layout.SUM_LANES)]), program.singles[_U(words[at + _U(layout.LOWEST)])]
        for lane in range(lanes):
            softmax(singles[lane:], width, lanes, count, lowest, scratch.singles)
    elif operation == layout.LOGISTIC:
        for place in range(width * lanes):
            singles[place] = logistic(singles[place])
    else:
        normalise(singles, width, lanes, words[at + _U(layout.NORM)])


@spliced
def run_columns(program: Memory, scratch: Memory, at: Any, rows: Rows) -> None:
    """What moves numbers, or treats each alone."""
    words, lanes = program.words, rows.lanes
    operation, kind = words[at + _U(layout.OPERATION)], words[at + _U(layout.KIND)]
    start, end, width = words[at + _U(layout.FROM)], words[at + _U(layout.TO)], _U(words[at + _U(layout.WIDTH)])
    count = width * lanes
    if operation == layout.LARGEST:
        labels, is_last = scratch.words[word_at(end) :], words[at + _U(layout.IS_LAST)] != 0
        if kind == layout.SINGLE:
            largest(scratch.singles[single_at(start) :], width, lanes, is_last, labels)
        else:
            largest(scratch.reals[word_at(start) :], width, lanes, is_last, labels)
    elif operation == layout.LOOK_UP:
        table, size = _U(words[at + _U(layout.TABLE)]), words[at + _U(layout.TABLE_SIZE)]
        for place in range(count):
            label = scratch.words[word_at(start) + place]
            scratch.words[word_at(end) + place] = words[table + _U(min(max(label, 0), size - 1))]
    elif operation == layout.CONVERT:
        convert(scratch, words[at + _U(layout.FROM_KIND)], kind, start, end, count)
    elif operation == layout.COPY:
        origin = _U(words[at + _U(layout.FROM_COLUMN)]) * lanes
        target = _U(words[at + _U(layout.TO_COLUMN)]) * lanes
        if kind == layout.SINGLE:
            copy(scratch.singles[single_at(start) + origin :], scratch.singles[single_at(end) + target :], count)
        else:
            copy(scratch.words[word_at(start) + origin :], scratch.words[word_at(end) + target :], count)
    elif operation == layout.POSITIVE:
        if kind == layout.SINGLE:
            keep_positive(scratch.singles[single_at(start) :], scratch.singles[single_at(end) :], count)
        else:
            keep_positive(scratch.reals[word_at(start) :], scratch.reals[word_at(end) :], count)
    elif operation == layout.SPREAD:
        if kind == layout.SINGLE:
            spread(program.singles[_U(start) :], scratch.singles[single_at(end) :], width, lanes)
        else:
            spread(program.reals[_U(start) :], scratch.reals[word_at(end) :], width, lanes)
    else:
        other = words[at + _U(layout.OTHER)]
        step, other_step = _U(words[at + _U(layout.FROM_STEP)]), _U(words[at + _U(layout.OTHER_STEP)])
        if kind == layout.SINGLE:
            one, two = scratch.singles[single_at(start) :], scratch.singles[single_at(other) :]
            combine(operation, one, step, two, other_step, scratch.singles[single_at(end) :], width, lanes)
        else:
            first, second = scratch.reals[word_at(start) :], scratch.reals[word_at(other) :]
            combine(operation, first, step, second, other_step, scratch.reals[word_at(end) :], width, lanes)


@kernel
def keep_positive(source: Any, to: Any, count: Any) -> None:
    """Negative numbers become 0; NaN stays."""
    for place in range(count):
        to[place] = source[place]
        to[place] = max(to[place], 0)


@spliced
def load_rows(program: Memory, scratch: Memory, at: Any, matrix: Memory, rows: Rows) -> bool:
    words = program.words
    width, input_width = _U(words[at + _U(layout.WIDTH)]), _U(words[layout.INPUT_WIDTH])
    columns, end = words[_U(words[at + _U(layout.COLUMNS)]) :], words[at + _U(layout.TO)]
    if words[at + _U(layout.KIND)] == layout.SINGLE:
        return fill(matrix.singles, input_width, columns, width, rows, scratch.singles[single_at(end) :])
    return fill(matrix.reals, input_width, columns, width, rows, scratch.reals[word_at(end) :])


@spliced
def run_rows(program: Memory, scratch: Memory, matrix: Memory, rows: Rows, outs: Outs) -> None:
    """All instructions for one row, or for lanes."""
    words, has_nan = program.words, False
    for instruction in range(_U(words[layout.INSTRUCTIONS])):
        at = _U(layout.HEADER_WORDS) + instruction * _U(layout.INSTRUCTION_WORDS)
        operation = words[at]
        if operation == layout.LOAD:
            has_nan |= load_rows(program, scratch, at, matrix, rows)
        elif operation == layout.TREES:
            run_trees(program, scratch, at, rows, has_nan)
        elif operation == layout.STORE:
            kind, start, width = (
                words[at + _U(layout.KIND)],
                words[at + _U(layout.FROM)],
                _U(words[at + _U(layout.WIDTH)]),
            )
            number = words[at + _U(layout.OUTPUT)]
            if number == 0:
                store_output(scratch, kind, start, width, rows, outs.one)
            elif number == 1:
                store_output(scratch, kind, start, width, rows, outs.two)
            else:
                store_output(scratch, kind, start, width, rows, outs.three)
        elif operation == layout.PRODUCT:
            multiply(program, scratch, at, rows)
        elif operation in (layout.SCORES, layout.CLASSES_OF_TWO, layout.SOFTMAX, layout.LOGISTIC, layout.NORMALISE):
            run_scores(program, scratch, at, rows)
        else:
            run_columns(program, scratch, at, rows)


@spliced
def run_all(program: Memory, scratch: Memory, matrix: Memory, count: Any, outs: Outs) -> None:
    """All rows: one by one where they are few, else in lanes."""
    first = _U(0)
    while first < count:
        left = count - first
        if left <= _U(layout.ALONE_ROWS):
            run_rows(program, scratch, matrix, Rows(first, _U(1), count, _U(1)), outs)
            first += _U(1)
        else:
            taken = min(left, _LANES)
            run_rows(program, scratch, matrix, Rows(first, taken, count, _LANES), outs)
            first += taken


@entry_point(POINTER, POINTER, INT64, POINTER, POINTER, POINTER)
def run_model(at: Any, matrix_at: Any, rows: int, one: Any, two: Any, three: Any) -> int:
    """Answers `rows` rows of the matrix; `one` to `three` are numpy's array objects that the outputs go to."""
    # Nothing reads a size but slices, which end there: `program` has checked all positions.
    size = (_ANY_SIZE,)
    head = carray(at, size, np.int64)
    program_at, scratch_at = pointer(head[layout.PROGRAM]), pointer(head[layout.SCRATCH])
    program = Memory(
        carray(program_at, size, np.int64),
        carray(program_at, size, np.float64),
        carray(program_at, size, np.float32),
        carray(program_at, size, np.int32),
    )
    scratch = Memory(
        carray(scratch_at, size, np.int64),
        carray(scratch_at, size, np.float64),
        carray(scratch_at, size, np.float32),
        carray(scratch_at, size, np.int32),
    )
    matrix = Memory(
        carray(matrix_at, size, np.int64),
        carray(matrix_at, size, np.float64),
        carray(matrix_at, size, np.float32),
        carray(matrix_at, size, np.int32),
    )
    one_at = pointer(carray(one, size, np.int64)[layout.ARRAY_DATA])
    two_at = pointer(carray(two, size, np.int64)[layout.ARRAY_DATA])
    three_at = pointer(carray(three, size, np.int64)[layout.ARRAY_DATA])
    outs = Outs(
        Memory(
            carray(one_at, size, np.int64),
            carray(one_at, size, np.float64),
            carray(one_at, size, np.float32),
            carray(one_at, size, np.int32),
        ),
        Memory(
            carray(two_at, size, np.int64),
            carray(two_at, size, np.float64),
            carray(two_at, size, np.float32),
            carray(two_at, size, np.int32),
        ),
        Memory(
            carray(three_at, size, np.int64),
            carray(three_at, size, np.float64),
            carray(three_at, size, np.float32),
            carray(three_at, size, np.int32),
        ),
    )
    run_all(program, scratch, matrix, _U(rows), outs)
    return 0


ENTRY_POINTS: Final = {"run_model": run_model}
"""The functions that Python calls through C."""
