"""The temporal dependency model a second time: slow, plain and independent of the native one.

The recursion is that of Han et al. (arXiv 2108.11586) in version "reconstructed" and libvpx's
(``vp9/encoder/vp9_tpl_model.c``) in version "source". What both stand on is libvpx's too:
``vpx_dsp/avg.c`` (Hadamard transform), ``vpx_dsp/variance.c`` (sub-sample search),
``vp9/common/vp9_filter.c`` (prediction) and ``vpx_dsp/intrapred.c``. One function per step of the
model; nothing here is meant to be fast.

Frames are in coding order. A motion vector is (row, column), in full samples while it is searched
and in quarter samples (``mv4``) afterwards. A plane is whatever part of it is known; samples
outside are those of its nearest edge.
"""

import numpy as np

from vpxrc import _native

BLOCK = 16
DC, VERTICAL, HORIZONTAL = range(3)

# sub_pel_filters_8 of vp9/common/vp9_filter.c: its rows 0, 4, 8 and 12, quarter samples.
TAPS = np.array(
    [
        [0, 0, 0, 128, 0, 0, 0, 0],
        [-1, 4, -16, 112, 37, -11, 4, -1],
        [-1, 6, -19, 78, 78, -19, 6, -1],
        [-1, 4, -11, 37, 112, -16, 4, -1],
    ]
)
K, N = np.mgrid[:BLOCK, :BLOCK]
COSINES = np.rint(64 * np.sqrt(2) * np.cos((2 * N + 1) * K * np.pi / 32)).astype(np.int64)
COSINES[0] = 64
HADAMARD_2 = np.array([[1, 1], [1, -1]])
HADAMARD_8 = np.kron(np.kron(HADAMARD_2, HADAMARD_2), HADAMARD_2)


def reference(
    luma, references, q_index, version="reconstructed", weights=None, lambda_q_index=None
) -> dict[str, np.ndarray]:
    """Run the whole model.

    Args:
        luma: uint8 ``[N, h, w]`` in coding order.
        references: ``[N, 3]`` positions, each below the frame's own, -1 = none.
        q_index: ``[N]``, 1..255.
        version: "reconstructed" or "source".
        weights: ``[N]``, how many frames a frame stands for; 1 each by default.
        lambda_q_index: Whose lambda turns bits into distortion; the largest of ``q_index`` by
            default.

    Returns:
        Arrays ``[N, rows, cols]`` by name, ``mv`` with two components more, ``frame_importance``
        ``[N]``.
    """
    source = [np.asarray(plane, np.int64) for plane in luma]
    weights = [1.0] * len(source) if weights is None else [float(weight) for weight in weights]
    blocks = costs(source, references)
    if version == "reconstructed":
        blocks |= code_frames(source, blocks, q_index)
    else:
        names = ("source_rate", "source_distortion", "rate", "distortion")
        blocks |= {name: np.zeros_like(blocks["intra_cost"]) for name in names}
    blocks |= propagate(blocks, weights, version)
    del blocks["mode"]
    own = blocks["intra_cost" if version == "source" else "distortion"].astype(np.float64)
    lambda_q_index = max(q_index) if lambda_q_index is None else lambda_q_index
    dep_cost = blocks["dep_distortion"] + multiplier(lambda_q_index) * blocks["dep_rate"]
    blocks["importance"] = 1 + dep_cost / own
    blocks["frame_importance"] = 1 + dep_cost.sum(axis=(1, 2)) / own.sum(axis=(1, 2))
    return blocks


# Planes


def window(plane, y, x, height=BLOCK, width=BLOCK):
    """Return samples of a plane, those of the nearest edge where there are none."""
    rows = np.clip(np.arange(y, y + height), 0, plane.shape[0] - 1)
    columns = np.clip(np.arange(x, x + width), 0, plane.shape[1] - 1)
    return plane[np.ix_(rows, columns)]


def grid(plane):
    """Return how many rows and columns of 16x16 blocks cover a picture."""
    return -(-plane.shape[0] // BLOCK), -(-plane.shape[1] // BLOCK)


# Motion search


def is_allowed(plane, y, x, size, mv):
    """Whether the block that a vector points to is at most 16 samples outside the grid."""
    return all(
        start + offset >= -16 and start + offset + size <= BLOCK * count + 16
        for start, offset, count in zip((y, x), mv, grid(plane), strict=True)
    )


def search_cost(current, other, y, x, size, mv):
    here = window(current, y, x, size, size)
    there = window(other, y + mv[0], x + mv[1], size, size)
    return int(np.abs(here - there).sum()) + size // 8 * (abs(mv[0]) + abs(mv[1]))


def neighbours(mv, step):
    row, column = mv
    return [(row - step, column), (row, column - step), (row, column + step), (row + step, column)]


def first_best(scored):
    """Return the pair of lowest cost, the first one of several."""
    return min(scored, key=lambda pair: pair[0])


def search_block(current, other, y, x, size, candidates, steps):
    """Return cost and vector: the best candidate, then up to four moves with every step."""

    def scored(vectors):
        return [
            (search_cost(current, other, y, x, size, mv), mv)
            for mv in vectors
            if is_allowed(current, y, x, size, mv)
        ]

    best = first_best(scored(candidates))
    for step in steps:
        for _ in range(4):
            around = scored(neighbours(best[1], step))
            if not around or first_best(around)[0] >= best[0]:
                break
            best = first_best(around)
    return best


def search_frame(current, other):
    """Return ``{(i, j): (cost, mv)}`` of the 16x16 blocks, after a search of the 32x32 blocks."""
    rows, cols = grid(current)
    coarse: dict[tuple[int, int], tuple[int, int]]
    fine: dict[tuple[int, int], tuple[int, tuple[int, int]]]
    coarse, fine = {}, {}
    for i in range(-(-rows // 2)):
        for j in range(-(-cols // 2)):
            near = [
                coarse[at][1] for at in ((i, j - 1), (i - 1, j), (i - 1, j + 1)) if at in coarse
            ]
            candidates = [(0, 0), *near]
            coarse[i, j] = search_block(
                current, other, 32 * i, 32 * j, 32, candidates, (16, 8, 4, 2, 1)
            )
    for i in range(rows):
        for j in range(cols):
            near = [fine[at][1] for at in ((i, j - 1), (i - 1, j)) if at in fine]
            candidates = [coarse[i // 2, j // 2][1], (0, 0), *near]
            fine[i, j] = search_block(current, other, 16 * i, 16 * j, 16, candidates, (2, 1))
    return fine


def bilinear(plane, y, x, mv4):
    row, column = 4 * y + mv4[0], 4 * x + mv4[1]
    samples = window(plane, row >> 2, column >> 2, BLOCK + 1, BLOCK + 1)
    right, down = 32 * (column & 3), 32 * (row & 3)
    across = ((128 - right) * samples[:, :-1] + right * samples[:, 1:] + 64) >> 7
    return ((128 - down) * across[:-1] + down * across[1:] + 64) >> 7


def refine(current, other, y, x, mv):
    """Return the vector in quarter samples: one move by a half, one by a quarter at most."""

    def squared_error(mv4):
        return int(((window(current, y, x) - bilinear(other, y, x, mv4)) ** 2).sum())

    def is_inside(mv4):
        whole = [(4 * y + mv4[0]) // 4 - y, (4 * x + mv4[1]) // 4 - x]
        return is_allowed(current, y, x, BLOCK + 1, whole)

    start = (4 * mv[0], 4 * mv[1])
    best = squared_error(start), start
    for step in (2, 1):
        vectors = [mv4 for mv4 in neighbours(best[1], step) if is_inside(mv4)]
        best = first_best([best, *((squared_error(mv4), mv4) for mv4 in vectors)])
    return best[1]


# Prediction


def inter(plane, y, x, mv4):
    """Predict a block with VP9's regular 8-tap filter, first across, then down."""
    row, column = 4 * y + mv4[0], 4 * x + mv4[1]
    samples = window(plane, (row >> 2) - 3, (column >> 2) - 3, BLOCK + 7, BLOCK + 7)
    return filter_across(filter_across(samples, TAPS[column & 3]).T, TAPS[row & 3]).T


def filter_across(samples, taps):
    total = sum(tap * samples[:, k : k + BLOCK] for k, tap in enumerate(taps))
    return np.clip((total + 64) >> 7, 0, 255)


def intra(plane, y, x, mode):
    """Predict a block from the row above and the column left of it, where there are any."""
    above = window(plane, y - 1, x, 1, BLOCK) if y else None
    left = window(plane, y, x - 1, BLOCK, 1) if x else None
    if mode == VERTICAL:
        edge = 127 if above is None else above
    elif mode == HORIZONTAL:
        edge = 129 if left is None else left
    else:
        edge = mean([line for line in (above, left) if line is not None])
    return np.broadcast_to(edge, (BLOCK, BLOCK)).astype(np.int64)


def mean(lines):
    if not lines:
        return 128
    count = BLOCK * len(lines)
    return (sum(int(line.sum()) for line in lines) + count // 2) // count


# Costs


def satd(residual):
    """Sum of the magnitudes of vpx_hadamard_16x16's coefficients."""
    a0, a1, a2, a3 = (
        HADAMARD_8 @ residual[y : y + 8, x : x + 8] @ HADAMARD_8.T for y in (0, 8) for x in (0, 8)
    )
    b0, b1, b2, b3 = (a0 + a1) >> 1, (a0 - a1) >> 1, (a2 + a3) >> 1, (a2 - a3) >> 1
    return int(sum(np.abs(out).sum() for out in (b0 + b2, b1 + b3, b0 - b2, b1 - b3)))


def intra_choice(plane, y, x):
    """Return SATD and mode of the best intra prediction from the source."""
    block = window(plane, y, x)
    modes = (DC, VERTICAL, HORIZONTAL)
    return first_best([(satd(block - intra(plane, y, x, mode)), mode) for mode in modes])


def inter_choice(source, n, y, x, searched):
    """Return SATD, position and vector (quarter samples) of the best reference, None without."""
    if not searched:
        return None
    i, j = y // BLOCK, x // BLOCK
    position = min(searched, key=lambda other: searched[other][i, j][0])  # the first of equals
    mv4 = refine(source[n], source[position], y, x, searched[position][i, j][1])
    cost = satd(window(source[n], y, x) - inter(source[position], y, x, mv4))
    return cost, position, mv4


def costs(source, references):
    """Choose mode, reference and vector of every block, on the sources alone."""
    rows, cols = grid(source[0])
    shape = (len(source), rows, cols)
    result = {name: np.zeros(shape, np.int64) for name in ("intra_cost", "inter_cost", "mode")}
    result |= {"reference": np.full(shape, -1), "mv": np.zeros((*shape, 2), np.int64)}
    for n, plane in enumerate(source):
        others = dict.fromkeys(int(position) for position in references[n] if position >= 0)
        searched = {position: search_frame(plane, source[position]) for position in others}
        for i, j in np.ndindex(rows, cols):
            at, y, x = (n, i, j), BLOCK * i, BLOCK * j
            intra_cost, result["mode"][at] = intra_choice(plane, y, x)
            result["intra_cost"][at] = result["inter_cost"][at] = max(1, intra_cost)
            best = inter_choice(source, n, y, x, searched)
            if best is not None and best[0] < intra_cost:
                result["inter_cost"][at] = max(1, best[0])
                result["reference"][at], result["mv"][at] = best[1:]
    return result


# Transform, quantisation, rate, distortion


def multiplier(q_index):
    """Return lambda: squared sample errors per bit."""
    step = _native.ac_quantizer(int(q_index))
    return 4.3 * step * step / 2048


def forward_transform(residual):
    across = (residual @ COSINES.T + 4) >> 3
    return (COSINES @ across + 512) >> 10


def inverse_transform(coefficients):
    down = np.clip((COSINES.T @ coefficients + 64) >> 7, -32768, 32767)
    return (down @ COSINES + 2048) >> 12


def quantise(coefficients, step):
    rounding = (3 * step) >> 3
    reciprocal = np.float32(1) / np.float32(step)
    return np.trunc((np.abs(coefficients) + rounding).astype(np.float32) * reciprocal).astype(int)


def bits_of(levels):
    exponents = [int(level).bit_length() - 1 for level in levels.ravel() if level > 0]
    return 1 + sum(4 + 2 * exponent for exponent in exponents)


def code(residual, q_index):
    """Return bits, distortion and the reconstructed residual."""
    step = _native.ac_quantizer(int(q_index))
    coefficients = forward_transform(residual)
    levels = quantise(coefficients, step)
    restored = np.clip(np.sign(coefficients) * levels * step, -32768, 32767)
    bits = bits_of(levels)
    distortion = int(((coefficients - restored) ** 2).sum()) >> 6
    skipped = int((residual**2).sum())
    price = multiplier(q_index)
    if levels.any() and distortion + price * bits < skipped + price * 1:
        return bits, distortion, inverse_transform(restored)
    return 1, skipped, np.zeros_like(residual)


def code_frames(source, blocks, q_index):
    """Code all frames one after the other, each from what the model reconstructed before."""
    names = ("source_rate", "source_distortion", "rate", "distortion")
    result = {name: np.zeros_like(blocks["intra_cost"]) for name in names}
    _, rows, cols = blocks["intra_cost"].shape
    reconstructed = []
    for n in range(len(source)):
        reconstructed.append(np.zeros((BLOCK * rows, BLOCK * cols), np.int64))
        for i, j in np.ndindex(rows, cols):
            numbers = code_block(source, reconstructed, blocks, n, i, j, q_index[n])
            for name, value in zip(names, numbers, strict=True):
                result[name][n, i, j] = value
    return result


def code_block(source, reconstructed, blocks, n, i, j, q_index):
    """Code one block, add it to the reconstruction, return rates and distortions."""
    y, x, position = BLOCK * i, BLOCK * j, int(blocks["reference"][n, i, j])
    block = window(source[n], y, x)
    if position >= 0:
        mv4 = [int(component) for component in blocks["mv"][n, i, j]]
        prediction = inter(reconstructed[position], y, x, mv4)
        source_rate, source_distortion, _ = code(
            block - inter(source[position], y, x, mv4), q_index
        )
        rate, distortion, residual = code(block - prediction, q_index)
    else:
        prediction = intra(reconstructed[n], y, x, blocks["mode"][n, i, j])
        rate, distortion, residual = code(block - prediction, q_index)
        source_rate, source_distortion = rate, distortion
    restored = np.clip(prediction + residual, 0, 255)
    reconstructed[n][y : y + BLOCK, x : x + BLOCK] = restored
    rate, distortion = max(rate, source_rate), max(distortion, source_distortion)
    return source_rate, max(1, source_distortion), rate, max(1, distortion)


# Recursion


def propagate(blocks, weights, version):
    """Hand every inter block's share to what it is predicted from, last frame first."""
    shape = blocks["intra_cost"].shape
    distortion, rate = np.zeros(shape), np.zeros(shape)
    flow = source_flow if version == "source" else reconstructed_flow
    for n in reversed(range(shape[0])):
        for i, j in np.ndindex(*shape[1:]):
            at, position = (n, i, j), blocks["reference"][n, i, j]
            if position >= 0:
                block = {name: values[at] for name, values in blocks.items()}
                flow_d, flow_r = flow(block, weights[n], distortion[at], rate[at])
                spread(distortion[position], i, j, block["mv"], flow_d)
                spread(rate[position], i, j, block["mv"], flow_r)
    return {"dep_distortion": distortion, "dep_rate": rate}


def source_flow(block, weight, dep_distortion, _):
    intra_cost, inter_cost = float(block["intra_cost"]), float(block["inter_cost"])
    return (weight * intra_cost + dep_distortion) * (1 - inter_cost / intra_cost), 0.0


def reconstructed_flow(block, weight, dep_distortion, dep_rate):
    distortion, source_distortion = float(block["distortion"]), float(block["source_distortion"])
    alpha = (distortion - source_distortion) / distortion
    beta = source_distortion / distortion
    through = -128 * np.log2(beta + (1 - beta) * 2.0 ** (-2 * dep_rate / 256))
    return (
        weight * (distortion - source_distortion) + alpha * dep_distortion,
        weight * (int(block["rate"]) - int(block["source_rate"])) + through,
    )


def spread(target, i, j, mv4, flow):
    """Add a flow to the up to four blocks under the block that a vector points to."""
    y, x = (BLOCK * k + ((int(part) + 2) >> 2) for k, part in zip((i, j), mv4, strict=True))
    for row in (y // BLOCK, y // BLOCK + 1):
        for col in (x // BLOCK, x // BLOCK + 1):
            height = BLOCK - abs(y - BLOCK * row)
            width = BLOCK - abs(x - BLOCK * col)
            if height > 0 and width > 0 and 0 <= row < len(target) and 0 <= col < target.shape[1]:
                target[row, col] += flow * (height * width) / 256
