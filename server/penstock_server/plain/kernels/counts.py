"""What is counted of batches that kernels run, as `metrics.recorder` and `batching.cost` do it of others.

The cells are those of `metrics.counters`: nothing but the reactor's thread writes them.
"""

from typing import Final

from penstock_server.compiled_models.layout import DOUBLE, SINGLE
from penstock_server.features import counting
from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import double_at, set_double, set_word, single_at, word
from penstock_server.plain.layout import (
    A_DATA,
    C_CELL,
    C_LABEL,
    C_PLACE,
    CLASS_BYTES,
    COST_BASE,
    COST_COVARIANCE,
    COST_MEAN_ROWS,
    COST_MEAN_S,
    COST_ROW,
    COST_SEEN,
    COST_SLOPE,
    COST_VARIANCE,
    H_EDGE_COUNT,
    H_EDGES,
    L_BASE,
    L_LARGEST,
    L_ROW,
    LABELS,
    M_AT,
    M_EDGE_COUNT,
    M_EDGES,
    M_KIND,
    M_LARGEST,
    M_OUTPUT,
    M_SMALLEST,
    M_WIDTH,
    NONE,
    NUMBER_BYTES,
    OUTPUT_BYTES,
    S_ALL_REQUESTS,
    S_ALL_ROWS,
    S_ANSWERED,
    S_BATCHES,
    S_FEATURES,
    S_FEATURES_SUMS,
    S_INFER,
    S_INFER_SUMS,
    S_REQUEST_SUMS,
    S_ROW_EDGE_COUNT,
    S_ROW_EDGES,
    U_BINS,
    U_CLASS_COUNT,
    U_CLASS_OF_TEXT,
    U_CLASSES,
    U_CLASSES_AT,
    U_COST,
    U_DRIFT,
    U_DRIFT_AT,
    U_DRIFT_ROWS,
    U_LIMIT_ROWS,
    U_NUMBER_COUNT,
    U_NUMBERS,
    U_PREDICTED_KIND,
    U_PREDICTED_WIDTH,
    U_SPAN,
    U_STAGES,
    U_WINDOW_BYTES,
    U_WINDOW_ROWS,
    U_WINDOWS,
)

WEIGHT: Final = 0.02
OUTLIER: Final = 3.0
STIFFNESS: Final = 0.001
"""As `batching.cost` has them."""


@kernel
def cell_of(edges: int, count: int, value: int) -> int:
    """The first cell whose upper bound is not below a value; the one after the last if there is none."""
    first, end = 0, count
    while first < end:
        middle = (first + end) // 2
        if word(edges + 8 * middle) < value:
            first = middle + 1
        else:
            end = middle
    return first


@kernel
def latency_cell(latency: int, took: int) -> int:
    """The cell that counts a duration, as `metrics.counters.latency_bucket` has it."""
    return cell_of(word(latency + H_EDGES), word(latency + H_EDGE_COUNT), took)


@kernel
def count_more(cells: int, cell: int, more: int) -> None:
    set_word(cells + 8 * cell, word(cells + 8 * cell) + more)


@kernel
def add_to_sum(sum_at: int, value: float) -> None:
    set_double(sum_at, double_at(sum_at) + value)


@kernel
def count_stages(fused: int, latency: int, requests: int, rows: int, ended: int, features: int, infer: int) -> None:
    """Counts an answered batch: what its stages took, its rows and its requests, and when it was answered."""
    stages = word(fused + U_STAGES)
    count_more(word(stages + S_FEATURES), latency_cell(latency, features), 1)
    count_more(word(stages + S_INFER), latency_cell(latency, infer), 1)
    cell = cell_of(word(stages + S_ROW_EDGES), word(stages + S_ROW_EDGE_COUNT), rows)
    count_more(word(stages + S_BATCHES), cell, 1)
    add_to_sum(word(stages + S_FEATURES_SUMS) + 8 * cell, features)
    add_to_sum(word(stages + S_INFER_SUMS) + 8 * cell, infer)
    add_to_sum(word(stages + S_REQUEST_SUMS), requests * features)
    add_to_sum(word(stages + S_REQUEST_SUMS) + 8, requests * infer)
    set_word(word(stages + S_ANSWERED), ended)
    count_more(word(stages + S_ALL_ROWS), 0, rows)
    count_more(word(stages + S_ALL_REQUESTS), 0, requests)


@kernel
def window(fused: int) -> int:
    """Where the current window of drift counts is."""
    place = word(word(fused + U_DRIFT_AT)) % word(fused + U_WINDOWS)
    return word(fused + U_DRIFT) + place * word(fused + U_WINDOW_BYTES)


@kernel
def count_drift_rows(fused: int, rows: int) -> None:
    """Counts rows whose features were counted; after a full window the next one replaces the oldest."""
    if not word(fused + U_DRIFT):
        return
    at, counts, windows = word(fused + U_DRIFT_AT), word(fused + U_DRIFT_ROWS), word(fused + U_WINDOWS)
    place = word(at) % windows
    count_more(counts, place, rows)
    if word(counts + 8 * place) >= word(fused + U_WINDOW_ROWS):
        # Zeroed before the number rises: a reader in between may miss old rows, but counts no old row as new.
        following = (place + 1) % windows
        start = word(fused + U_DRIFT) + following * word(fused + U_WINDOW_BYTES)
        for byte in range(0, word(fused + U_WINDOW_BYTES), 8):
            set_word(start + byte, 0)
        set_word(counts + 8 * following, 0)
        set_word(at, word(at) + 1)


@kernel
def number_at(data: int, kind: int, place: int) -> float:
    """One of some numbers of a type."""
    if kind == SINGLE:
        return single_at(data + 4 * place)
    return double_at(data + 8 * place) if kind == DOUBLE else float(word(data + 8 * place))


@kernel
def largest_of(data: int, kind: int, first: int, width: int) -> int:
    """The place of the largest of `width` numbers from `first` on: of equal ones the first, or the first NaN, as in numpy."""
    best, highest = first, number_at(data, kind, first)
    for place in range(first + 1, first + width):
        value = number_at(data, kind, place)
        if highest != highest:  # noqa: PLR0124 - NaN alone
            break
        if value > highest or value != value:  # noqa: PLR0124
            best, highest = place, value
    return best


@kernel
def label_of(fused: int, how: int, data: int, row: int) -> int:
    """What was predicted for a row: a label, or the place of the largest score."""
    if how == LABELS:
        label = word(data + 8 * row)
        texts = word(fused + U_CLASS_OF_TEXT)
        return word(texts + 8 * label) if texts else label
    width = word(fused + U_PREDICTED_WIDTH)
    return largest_of(data, word(fused + U_PREDICTED_KIND), row * width, width) - row * width


@kernel
def class_of(fused: int, label: int) -> int:
    """The class with a label; 0 if it is not known."""
    for number in range(word(fused + U_CLASS_COUNT)):
        found = word(fused + U_CLASSES) + number * CLASS_BYTES
        if word(found + C_LABEL) == label:
            return found
    return 0


@kernel
def count_classes(fused: int, how: int, data: int, rows: int, is_drift: bool) -> bool:
    """Counts the predicted class of each row, `is_drift` for drift too; false, and nothing is counted, if one is not known."""
    for row in range(rows):
        if class_of(fused, label_of(fused, how, data, row)) == 0:
            return False
    counts = word(fused + U_CLASSES_AT) if is_drift else NONE
    if counts != NONE:
        counts += window(fused)
    for row in range(rows):
        found = class_of(fused, label_of(fused, how, data, row))
        count_more(word(found + C_CELL), 0, 1)
        if counts != NONE:
            count_more(counts, word(found + C_PLACE), 1)
    return True


@kernel
def count_number(number: int, bins: int, counts: int, value: float) -> None:
    """Counts a value in its bin, and adds it to the bin's sum."""
    if value != value:  # noqa: PLR0124 - NaN alone
        count_more(counts, bins + counting.MISSING, 1)
        return
    if value - value != 0.0:
        count_more(counts, bins + counting.INFINITE, 1)
        return
    first, end, edges = 0, word(number + M_EDGE_COUNT), word(number + M_EDGES)
    while first < end:
        middle = (first + end) // 2
        if value < double_at(edges + 8 * middle):
            end = middle
        else:
            first = middle + 1
    count_more(counts, first, 1)
    add_to_sum(counts + 8 * (bins + counting.EXTRA_CELLS + counting.TALLIES + first), value)
    if value < double_at(number + M_SMALLEST):
        count_more(counts, bins + counting.BELOW, 1)
    elif value > double_at(number + M_LARGEST):
        count_more(counts, bins + counting.ABOVE, 1)


@kernel
def count_numbers(fused: int, outputs: int, rows: int) -> None:
    """Counts for drift the numbers of all rows; `outputs` says where the data of each output is."""
    bins = word(fused + U_BINS)
    for at in range(word(fused + U_NUMBER_COUNT)):
        number = word(fused + U_NUMBERS) + at * NUMBER_BYTES
        data = word(outputs + word(number + M_OUTPUT) * OUTPUT_BYTES + A_DATA)
        kind, width, counts = word(number + M_KIND), word(number + M_WIDTH), window(fused) + word(number + M_AT)
        for row in range(rows):
            count_number(number, bins, counts, number_at(data, kind, largest_of(data, kind, row * width, width)))


@kernel
def learn(cost: int, rows: int, took_s: float) -> None:
    """Adds a batch to what is known of the cost, as `batching.cost.CostModel.update` does."""
    seen = double_at(cost + COST_SEEN)
    if seen > 0.0:
        took_s = min(took_s, OUTLIER * (double_at(cost + COST_BASE) + double_at(cost + COST_ROW) * rows))
    seen += 1.0
    weight = max(WEIGHT, 1.0 / seen)
    off_rows, off_s = rows - double_at(cost + COST_MEAN_ROWS), took_s - double_at(cost + COST_MEAN_S)
    mean_rows = double_at(cost + COST_MEAN_ROWS) + weight * off_rows
    mean_s = double_at(cost + COST_MEAN_S) + weight * off_s
    variance = (1.0 - weight) * (double_at(cost + COST_VARIANCE) + weight * off_rows * off_rows)
    covariance = (1.0 - weight) * (double_at(cost + COST_COVARIANCE) + weight * off_rows * off_s)
    slope = double_at(cost + COST_SLOPE)
    stiffness = STIFFNESS * mean_rows * mean_rows
    scale = variance + stiffness
    row_s = (covariance + stiffness * slope) / scale if scale > 0.0 else 0.0
    row_s = min(max(row_s, 0.0), mean_s / mean_rows if mean_rows > 0.0 else 0.0)
    set_double(cost + COST_SEEN, seen)
    set_double(cost + COST_MEAN_ROWS, mean_rows)
    set_double(cost + COST_MEAN_S, mean_s)
    set_double(cost + COST_VARIANCE, variance)
    set_double(cost + COST_COVARIANCE, covariance)
    set_double(cost + COST_SLOPE, slope + WEIGHT * (row_s - slope))
    set_double(cost + COST_BASE, max(0.0, mean_s - row_s * mean_rows))
    set_double(cost + COST_ROW, row_s)


@kernel
def rows_within(base_s: float, row_s: float, span_s: float, most: int) -> int:
    """The rows of the largest batch that takes at most so long, as `batching.cost.Cost.rows_within` has it."""
    left_s = span_s - base_s
    if left_s >= row_s * most:
        return most
    return max(1, int(left_s / row_s)) if row_s > 0.0 else 1


@kernel
def tell_cost(fused: int, lane: int) -> None:
    """Has the lane's admission know what batches cost."""
    cost = word(fused + U_COST)
    base_s, row_s = double_at(cost + COST_BASE), double_at(cost + COST_ROW)
    set_word(lane + L_BASE, int(base_s / 1e-9))
    set_word(lane + L_ROW, int(row_s / 1e-9))
    set_word(lane + L_LARGEST, rows_within(base_s, row_s, double_at(fused + U_SPAN), word(fused + U_LIMIT_ROWS)))
