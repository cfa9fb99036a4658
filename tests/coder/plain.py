"""docs/frozen.md in plain Python integers, one stream and one number at a time: slow, and nothing shared.

`Plain.evaluate` gives every intermediate tensor as nested lists [step, ...], `generate` a conformance case's
tensors likewise. `Plain.reach` is what was farthest from 0, for the bounds that the document proves.
"""

from math import isqrt

MASK = (1 << 64) - 1


def round_(a, n):
    return (a + (1 << (n - 1))) >> n


def sat(a, limit):
    return max(-limit, min(limit, a))


def exp2_table():
    root = 1 << 159
    for _ in range(10):
        root = isqrt(root << 160)
    power, table = 1 << 160, []
    for _ in range(1024):
        table.append((power + (1 << 137)) >> 138)
        power = (power * root) >> 160
    return table


TABLE = exp2_table()


def exp2(d):
    return TABLE[d % 1024] >> min(d // 1024, 31)


def quantise(x):
    m = max(1, max(abs(v) for v in x))
    r = (127 << 24) // m
    return [round_(v * r, 24) for v in x], m


def normalise(x):
    q, m = quantise(x)
    rms = max(1, isqrt(sum(v * v for v in x) // len(x)))
    return q, (m << 16) // rms


class Plain:
    """A checkpoint as nested lists, and one stream."""

    def __init__(self, config, tensors):
        self.c, self.t = config, tensors
        self.reach = {"sum": 0, "scale": 0, "product": 0, "scaled": 0, "multiplied": 0}
        self.found = {}

    def note(self, name, value):
        self.found.setdefault(name, []).append(value)

    def far(self, what, value):
        self.reach[what] = max(self.reach[what], abs(value))

    def linear(self, q, s, name, weight=None):
        weight = self.t[f"{name}.weight"] if weight is None else weight
        multiplier, (shift,) = self.t[f"{name}.multiplier"], self.t[f"{name}.shift"]
        sums = [sum(w * v for w, v in zip(row, q, strict=True)) for row in weight]
        scaled = [round_(a * s, 16) for a in sums]
        y = [round_(t * m, shift) for t, m in zip(scaled, multiplier, strict=True)]
        for a, t, m in zip(sums, scaled, multiplier, strict=True):
            for what, value in (("sum", a), ("product", a * s), ("scaled", t), ("multiplied", t * m)):
                self.far(what, value)
        self.far("scale", s)
        for end, value in ((".rows", q), (".scales", [s]), (".sums", sums), (".scaled", scaled), ("", y)):
            self.note(name + end, value)
        return y

    def evaluate(self, ids):
        """Feed one stream's ids; returns {name: [step, ...]}."""
        c, t = self.c, self.t
        keys = [[] for _ in range(c.num_layers)]
        values = [[] for _ in range(c.num_layers)]
        for p, token in enumerate(ids):
            multiplier, (shift,) = t["embed.multiplier"][token], t["embed.shift"]
            x = [sat(round_(w * multiplier, shift), 1 << 22) for w in t["embed.weight"][token]]
            self.note("embed", x)
            for i in range(c.num_layers):
                x = self.layer(i, p, len(ids), x, keys[i], values[i])
            weight = t["embed.weight"][: c.vocab_size] if c.tied else None
            logits = [sat(y, 1 << 24) for y in self.linear(*normalise(x), "head", weight)]
            self.note("logits", logits)
        return self.found

    def layer(self, i, p, steps, x, keys, values):
        c, t, name = self.c, self.t, f"layers.{i}"
        H, G, K, W = c.num_heads, c.num_kv_heads, c.head_dim, c.window
        y = [sat(v, (1 << 14) - 1) for v in self.linear(*normalise(x), f"{name}.qkv")]
        heads = [y[h * K : (h + 1) * K] for h in range(H + 2 * G)]
        if c.positions == "rotary":
            heads[: H + G] = [self.rotate(head, p) for head in heads[: H + G]]
            self.note(f"{name}.rotated", heads[: H + G])
        heads = [[sat(round_(v, 6), 127) for v in head] for head in heads]
        queries = heads[:H]
        keys.append(heads[H : H + G])
        values.append(heads[H + G :])
        self.note(f"{name}.queries", queries)
        self.note(f"{name}.keys", keys[-1])
        self.note(f"{name}.values", values[-1])
        all_scores, all_weights, averages = [], [], []
        (multiplier,), (shift,) = t[f"{name}.score.multiplier"], t[f"{name}.score.shift"]
        for h, query in enumerate(queries):
            g = h // (H // G)
            scores = {}
            for past in range(max(0, p - W + 1), p + 1):
                dot = sum(a * b for a, b in zip(query, keys[past][g], strict=True))
                scores[past] = round_(dot * multiplier, shift)
                if c.positions == "relative":
                    scores[past] += t[f"{name}.bias"][h][p - past]
            top = max(scores.values())
            weights = {past: round_(255 * exp2(top - z), 22) for past, z in scores.items()}
            total = sum(weights.values())
            for j in range(K):
                summed = sum(w * values[past][g][j] for past, w in weights.items())
                averages.append(round_(summed * ((1 << 31) // total), 23))
            all_scores.append([scores.get(past, 0) for past in range(steps)])
            all_weights.append([weights.get(past, 0) for past in range(steps)])
        self.note(f"{name}.scores", all_scores)
        self.note(f"{name}.weights", all_weights)
        self.note(f"{name}.averages", averages)
        q, m = quantise(averages)
        y = self.linear(q, m << 8, f"{name}.out")
        x = [sat(a + b, 1 << 22) for a, b in zip(x, y, strict=True)]
        self.note(f"{name}.attended", x)
        u = [sat(v, (1 << 14) - 1) for v in self.linear(*normalise(x), f"{name}.up")]
        g, v = (u[: c.ffn_dim], u[c.ffn_dim :]) if c.ffn == "reglu" else (u, u)
        hidden = [round_(max(a, 0) * b, 12) for a, b in zip(g, v, strict=True)]
        self.note(f"{name}.hidden", hidden)
        q, m = quantise(hidden)
        y = self.linear(q, m << 8, f"{name}.down")
        x = [sat(a + b, 1 << 22) for a, b in zip(x, y, strict=True)]
        self.note(f"{name}.fed", x)
        return x

    def rotate(self, head, p):
        cosine, period, half = self.t["rotary.cosine"], self.c.rotary_period, len(head) // 2
        turned = [0] * len(head)
        for j, turns in enumerate(self.t["rotary.turns"]):
            angle = p * turns % period
            cos, sin = cosine[angle], cosine[(angle - period // 4) % period]
            turned[j] = round_(head[j] * cos - head[j + half] * sin, 14)
            turned[j + half] = round_(head[j + half] * cos + head[j] * sin, 14)
        return turned


def splitmix64(seed):
    """Steele, Lea and Flood: fast splittable pseudorandom number generators, 2014."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def shapes(c):
    """{name: (shape, lowest, highest)} of the tensors that evaluation reads, from the document's table."""
    found = {}

    def scaled(name, rows, columns):
        if columns:
            found[f"{name}.weight"] = ([rows, columns], -127, 127)
        found[f"{name}.multiplier"] = ([rows], 0, (1 << 18) - 1)
        found[f"{name}.shift"] = ([1], 1, 40)

    V, D, H, G, K, F = c.vocab_size, c.d_model, c.num_heads, c.num_kv_heads, c.head_dim, c.ffn_dim
    scaled("embed", V + 1, D)
    for i in range(c.num_layers):
        scaled(f"layers.{i}.qkv", (H + 2 * G) * K, D)
        scaled(f"layers.{i}.score", 1, 0)
        if c.positions == "relative":
            found[f"layers.{i}.bias"] = ([H, c.window], -(1 << 20), 1 << 20)
        scaled(f"layers.{i}.out", D, H * K)
        scaled(f"layers.{i}.up", 2 * F if c.ffn == "reglu" else F, D)
        scaled(f"layers.{i}.down", D, F)
    scaled("head", V, 0 if c.tied else D)
    if c.positions == "rotary":
        found["rotary.cosine"] = ([c.rotary_period], -(1 << 14), 1 << 14)
        found["rotary.turns"] = ([K // 2], 1, c.rotary_period - 1)
    return found


KINDS = ("typical", "any", "sparse", "limits", "highest", "lowest", "zeros")


def element(kind, name, low, high, u):
    """One element of a tensor, from its number u."""
    end = name.rsplit(".", 1)[1]
    if end == "shift":
        if kind in ("limits", "highest", "lowest"):
            return 1
        if kind == "zeros":
            return 40
        return 8 if name == "embed.shift" else 16 if name.endswith("score.shift") else 18
    if kind == "limits":
        return high if u % 2 else low
    if kind == "highest":
        return high
    if kind == "lowest":
        return high if end == "multiplier" else low
    if kind == "zeros":
        return 1 if end == "turns" else 0
    if kind == "sparse" and end == "weight":
        return low + (u >> 4) % (high - low + 1) if u % 16 == 0 else 0
    if kind != "any" and end == "multiplier":
        low, high = 1 << 10, (1 << 14) - 1
    if kind != "any" and end == "bias":
        low, high = -(1 << 12), 1 << 12
    return low + u % (high - low + 1)


def generate(case):
    """(tensors as nested lists, ids) of a conformance case, as the document says."""
    numbers, tensors = splitmix64(case.seed), {}
    for name, (shape, low, high) in sorted(shapes(case.config).items()):
        chosen = KINDS[next(numbers) % len(KINDS)]
        kind = chosen if case.kind == "mixed" else case.kind
        columns = shape[-1]
        rows = [
            [element(kind, name, low, high, next(numbers)) for _ in range(columns)]
            for _ in range(shape[0] if len(shape) == 2 else 1)
        ]
        tensors[name] = rows if len(shape) == 2 else rows[0]
    ids = [[next(numbers) % case.config.vocab_size for _ in range(case.steps)] for _ in range(case.streams)]
    for row in ids:
        row[0] = case.config.vocab_size
    return tensors, ids
