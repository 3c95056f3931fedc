"""Charts as SVG text: a timeline and curves. Values in, text out; every text in it is escaped."""

import html
import math
from collections.abc import Mapping, Sequence

from gpu_offload.orchestrator.output.units import human_duration
from gpu_offload.orchestrator.report.content import Span, drawable, is_drawable

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
PHASES = {"request": "#9ca3af", "set-up": "#d97706", "training": "#059669", "ending": "#2563eb"}
WIDTH, LEFT, RIGHT = 520, 72, 16
ROW, BAR = 28, 18


def timeline_svg(spans: Sequence[Span]) -> str:
    """Draw a row for each attempt; time goes to the right, from the start of the first."""
    drawn = drawable(spans)
    if not drawn:
        return ""
    first, last = min(s.start for s in drawn), max(s.end for s in drawn)
    numbers = list(dict.fromkeys(s.attempt for s in drawn))
    height = ROW * len(numbers) + 60
    scale = (WIDTH - LEFT - RIGHT) / (last - first)
    parts = []
    for row, number in enumerate(numbers):
        y = 10 + ROW * row
        parts.append(svg_text(LEFT - 8, y + BAR - 4, f"attempt {number}", "end"))
        for span in (s for s in drawn if s.attempt == number):
            # At least a pixel wide, so that a short phase can be seen.
            x, width = LEFT + (span.start - first) * scale, max(1.0, (span.end - span.start) * scale)
            label = f"{span.phase}: {span.end - span.start:.1f} s"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{PHASES[span.phase]}">'
                f"<title>{html.escape(label)}</title></rect>"
            )
    base = 10 + ROW * len(numbers)
    for tick in _ticks(0.0, last - first, count=4):
        x = LEFT + tick * scale
        parts.append(f'<line x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{base}" class="grid"/>')
        parts.append(svg_text(x, base + 16, human_duration(tick), "middle"))
    for i, (phase, colour) in enumerate(PHASES.items()):
        x = LEFT + i * 105
        parts.append(f'<rect x="{x}" y="{base + 26}" width="12" height="12" fill="{colour}"/>')
        parts.append(svg_text(x + 18, base + 37, phase, "start"))
    return svg_figure(height, parts, "Timeline")


def curves_svg(title: str, curves: Mapping[str, Sequence[float]], *, axis: str = "epoch") -> str:
    """Draw one line for each curve over the epochs, or what `axis` says, counted from 1, with a legend."""
    drawn = {name: values for name, values in curves.items() if values and is_drawable(values)}
    if not drawn:
        return ""
    low = min(0.0, *(min(values) for values in drawn.values()))
    high = max(max(values) for values in drawn.values())
    if high - low <= max(1e-300, 1e-12 * -low):  # too small a span for ticks or a logarithm
        high = low + max(1.0, -low)
    count = max(len(values) for values in drawn.values())
    plot = 220
    height = plot + 66 + 18 * len(drawn)
    x_scale, y_scale = (WIDTH - LEFT - RIGHT) / max(1, count - 1), plot / (high - low)
    parts = []
    for tick in _ticks(low, high):
        y = 10 + plot - (tick - low) * y_scale
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(svg_text(LEFT - 8, y + 4, f"{tick:g}", "end"))
    epochs = sorted({max(1, round(t)) for t in _ticks(1.0, float(max(count, 2))) if t <= count})
    parts += [svg_text(LEFT + (epoch - 1) * x_scale, plot + 26, str(epoch), "middle") for epoch in epochs]
    parts.append(svg_text((LEFT + WIDTH - RIGHT) / 2, plot + 44, axis, "middle"))
    for i, (name, values) in enumerate(drawn.items()):
        colour = COLOURS[i % len(COLOURS)]
        points = [(LEFT + j * x_scale, 10 + plot - (v - low) * y_scale) for j, v in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) == 1:
            parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{colour}"/>')
        y = plot + 66 + 18 * i
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(svg_text(LEFT + 18, y, f"{name}: {values[-1]:.4g}", "start"))
    return svg_figure(height, parts, title)


def _ticks(low: float, high: float, *, count: int = 6) -> list[float]:
    """Return about `count` round values from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    # A tick on one of the ends must not be lost to rounding.
    start = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(start, math.floor(high / step + 1e-9) + 1)]


def svg_text(x: float, y: float, text: str, anchor: str) -> str:
    """Return an escaped text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def svg_figure(height: float, parts: Sequence[str], title: str) -> str:
    """Return parts as a drawing with a caption."""
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title, quote=True)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg></figure>'
    )
