"""The person inside the clothes: proportions, arms, legs, head and hair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agman.datasets.wardrobe.garments import Outfit
from agman.datasets.wardrobe.geometry import (
    Canvas,
    Points,
    both_sides,
    contrast,
    curve,
    darker,
    ellipse,
    lighter,
    mirrored,
    path,
    rgb,
    ribbon,
)

# Heights of the body's landmarks, as shares of the person's height.
CHIN, NECK_BASE, SHOULDER, ARMPIT, WAIST, HIP, CROTCH = 0.128, 0.196, 0.212, 0.27, 0.37, 0.465, 0.5
KNEE, ANKLE = 0.72, 0.945
UPPER_ARM, FOREARM, HAND = 0.165, 0.155, 0.062
_NECK = 0.03  # half width
_SIDE_Y = np.array([0.19, 0.212, 0.27, 0.30, 0.37, 0.465, 0.52])
_SIDE_X = np.array([0.100, 0.104, 0.090, 0.089, 0.068, 0.100, 0.106])


def side(y: float | np.ndarray, build: float = 0.0) -> np.ndarray:
    """Half width of the torso at height ``y``."""
    return np.interp(y, _SIDE_Y, _SIDE_X) * (1.0 + 0.07 * build)


def side_line(top: float, bottom: float, build: float, extra: float = 0.0) -> Points:
    """The right side of the torso between two heights, smooth, ``extra`` wider."""
    inner = [y for y in (0.30, 0.37, 0.42, 0.465) if top + 0.012 < y < bottom - 0.012]
    heights = [top, *inner, bottom]
    return curve(*((float(side(y, build)) + extra, y) for y in heights))


@dataclass(frozen=True)
class Arm:
    """One arm: a smooth line from the shoulder joint to the finger tips.

    Its parameter is 0 at the shoulder, 1 at the wrist and ``tip`` at the finger tips.
    """

    spine: Points
    t: np.ndarray

    @property
    def tip(self) -> float:
        return float(self.t[-1])

    def at(self, t: np.ndarray | float) -> Points:
        t = np.atleast_1d(t)
        x, y = (np.interp(t, self.t, self.spine[:, k]) for k in (0, 1))
        return np.stack([x, y], axis=1)

    def part(self, start: float, end: float) -> tuple[Points, np.ndarray]:
        """The piece between two parameters, and the parameters along it."""
        t = np.linspace(start, end, max(4, int(22 * (end - start)) + 2))
        return self.at(t), t


def arms(outfit: Outfit) -> tuple[Arm, Arm]:
    """The left and the right arm (of the picture, before mirroring)."""
    pose = [outfit.left_raise, outfit.left_bend, outfit.right_raise, outfit.right_bend]
    if outfit.hidden().get("sleeve_length") in ("shawl", "board"):
        pose = [10.0, 2.0, 10.0, 2.0]  # close to the body, under the shawl or around the board
    left = _arm(outfit, np.deg2rad(pose[0]), np.deg2rad(pose[1]))
    right = _arm(outfit, np.deg2rad(pose[2]), np.deg2rad(pose[3]))
    return Arm(left.spine * (-1.0, 1.0), left.t), right


def _arm(outfit: Outfit, upper: float, fore: float) -> Arm:
    """A right arm."""
    shoulder = np.array([0.094 * (1 + 0.07 * outfit.build), SHOULDER + 0.012])
    elbow = shoulder + UPPER_ARM * np.array([np.sin(upper), np.cos(upper)])
    direction = np.array([np.sin(fore), np.cos(fore)])
    wrist = elbow + FOREARM * direction
    tip = wrist + HAND * direction
    bend = elbow + 0.012 * (shoulder - elbow + (wrist - elbow))
    spine = curve(
        *map(tuple, (shoulder, (shoulder + elbow) / 2, bend, (elbow + wrist) / 2, wrist, tip))
    )
    steps = np.hypot(*np.diff(spine, axis=0).T)
    t = np.concatenate([[0.0], np.cumsum(steps)]) / (UPPER_ARM + FOREARM)
    return Arm(spine, t)


def arm_width(t: np.ndarray, build: float) -> np.ndarray:
    """Half width of the bare arm along its parameter, hand included."""
    knots = [0.0, 0.15, 0.5, 0.95, 1.02, 1.08, 1.15, 1.2]
    widths = [0.021, 0.026, 0.021, 0.0145, 0.015, 0.019, 0.016, 0.006]
    return np.interp(t, knots, widths) * (1.0 + 0.08 * build)


def draw_arm(canvas: Canvas, outfit: Outfit, arm: Arm) -> None:
    """The bare arm with its hand."""
    skin = rgb(outfit.skin)
    spine, t = arm.part(0.0, arm.tip)
    outline = ribbon(spine, arm_width(t, outfit.build))
    joint = arm.at(0.0)[0]
    canvas.fill(ellipse(joint[0], joint[1], 0.024, 0.024), skin)
    canvas.fill(outline, skin)
    shadow = spine + (0.35 * canvas.shadow_side * 0.02, 0.0)
    canvas.line(shadow[2:-3], darker(skin, 0.12), 0.012)
    canvas.line(outline, darker(skin, 0.3), 0.003)


def leg_spine(outfit: Outfit) -> Points:
    """The middle line of the right leg from the hip to the ankle."""
    apart = 0.012 + 0.014 * outfit.stance
    b = 1 + 0.07 * outfit.build
    return curve(
        (0.052 * b, 0.47),
        (0.052 * b + apart * 0.3, 0.6),
        (0.047 * b + apart * 0.6, KNEE),
        (0.046 * b + apart * 0.85, 0.82),
        (0.042 * b + apart, ANKLE),
    )


def leg_width(y: np.ndarray, build: float) -> np.ndarray:
    """Half width of the bare leg at height ``y``."""
    knots = [0.47, 0.54, 0.62, 0.70, 0.73, 0.79, 0.86, 0.945]
    widths = [0.051, 0.049, 0.042, 0.031, 0.0305, 0.033, 0.026, 0.0175]
    return np.interp(y, knots, widths) * (1.0 + 0.08 * build)


def draw_legs(canvas: Canvas, outfit: Outfit) -> None:
    """Hips, bare legs and shoes."""
    skin = rgb(outfit.skin)
    spine = leg_spine(outfit)
    hips = both_sides(np.concatenate([side_line(0.40, 0.50, outfit.build), path((0.0, 0.52))]))
    canvas.fill(hips, skin)
    right = ribbon(spine, leg_width(spine[:, 1], outfit.build))
    for sign in (-1.0, 1.0):
        leg = right * (sign, 1.0)
        canvas.fill(leg, skin)
        shade = spine[4:] * (sign, 1.0) + (0.016 * canvas.shadow_side, 0.0)
        canvas.line(shade, darker(skin, 0.12), 0.012)
        canvas.line(leg, darker(skin, 0.3), 0.003)
        knee = spine[np.abs(spine[:, 1] - KNEE).argmin()] * (sign, 1.0)
        canvas.line(
            curve(*(tuple(knee + d) for d in ((-0.012, 0), (0, 0.006), (0.012, 0)))),
            darker(skin, 0.2),
            0.004,
        )
        draw_shoe(canvas, outfit, float(spine[-1, 0]), sign)


def draw_shoe(canvas: Canvas, outfit: Outfit, x: float, sign: float) -> None:
    """One shoe below the ankle at ``x``."""
    color = rgb(outfit.shoe_color)
    shoe = curve(
        (x - 0.019, 0.945),
        (x - 0.024, 0.968),
        (x - 0.016, 0.986),
        (x + 0.02, 0.99),
        (x + 0.047, 0.985),
        (x + 0.04, 0.97),
        (x + 0.02, 0.952),
    )
    canvas.outlined(shoe * (sign, 1.0), color)
    canvas.line(path((x - 0.02, 0.988), (x + 0.045, 0.988)) * (sign, 1.0), darker(color, 0.5))


def draw_torso(canvas: Canvas, outfit: Outfit) -> None:
    """Neck, shoulders and bare chest."""
    skin = rgb(outfit.skin)
    b = 1 + 0.07 * outfit.build
    shoulder = curve(
        (_NECK, 0.11),
        (_NECK, 0.165),
        (_NECK + 0.012, 0.188),
        (0.075 * b, 0.203),
        (0.103 * b, 0.217),
    )
    half = np.concatenate([shoulder, side_line(ARMPIT - 0.03, 0.48, outfit.build)])
    canvas.fill(both_sides(half), skin)
    canvas.line(shoulder, darker(skin, 0.3), 0.003)
    canvas.line(mirrored(shoulder), darker(skin, 0.3), 0.003)
    # the chin's shadow and the collar bones model the neck
    canvas.fill(curve((-_NECK, 0.125), (0.0, 0.162), (_NECK, 0.125)), darker(skin, 0.16))
    bone = curve((0.012, 0.212), (0.035, 0.207), (0.066, 0.211))
    canvas.line(bone, darker(skin, 0.18), 0.004)
    canvas.line(mirrored(bone), darker(skin, 0.18), 0.004)


def is_turned(outfit: Outfit) -> bool:
    """Whether the person is seen from behind."""
    return "turned" in outfit.hidden().values()


def draw_hair_behind(canvas: Canvas, outfit: Outfit) -> None:
    """The part of the hair that lies behind neck and shoulders."""
    hair = darker(rgb(outfit.hair), 0.12)
    style = outfit.hair_style
    if style == "long":
        half = curve(
            (0.0, 0.0), (0.055, 0.03), (0.07, 0.1), (0.074, 0.2), (0.066, 0.25), (0.0, 0.255)
        )
        canvas.fill(both_sides(half), hair)
    elif style == "bob":
        half = curve((0.0, 0.0), (0.055, 0.03), (0.066, 0.09), (0.062, 0.145), (0.0, 0.15))
        canvas.fill(both_sides(half), hair)
    elif style == "bun":
        canvas.fill(ellipse(0.0, -0.012, 0.03, 0.026), hair)
    elif style == "ponytail":
        tail = curve(
            (0.02, 0.03), (0.075, 0.05), (0.092, 0.11), (0.07, 0.19), (0.055, 0.16), (0.05, 0.09)
        )
        canvas.fill(tail, hair)
    elif style == "curly":
        for x, y in (
            (-0.055, 0.05),
            (0.055, 0.05),
            (-0.06, 0.09),
            (0.06, 0.09),
            (0, 0.015),
            (-0.035, 0.02),
            (0.035, 0.02),
            (-0.05, 0.125),
            (0.05, 0.125),
        ):
            canvas.fill(ellipse(x, y, 0.032, 0.032, 14), hair)


def draw_head(canvas: Canvas, outfit: Outfit) -> None:
    """Face and fringe, or the back of the head."""
    skin, hair = rgb(outfit.skin), rgb(outfit.hair)
    if is_turned(outfit):
        _draw_back_of_head(canvas, outfit)
        return
    half = curve(
        (0.0, 0.012), (0.036, 0.022), (0.046, 0.06), (0.041, 0.095), (0.022, 0.122), (0.0, 0.129)
    )
    for sign in (-1, 1):
        canvas.fill(ellipse(sign * 0.046, 0.075, 0.008, 0.012, 10), darker(skin, 0.08))
    canvas.outlined(both_sides(half), skin, 0.25)
    turn = 0.008 * outfit.head_turn
    ink = darker(skin, 0.62)
    for sign in (-1, 1):
        x = turn + sign * 0.018
        canvas.fill(ellipse(x, 0.0725, 0.0085, 0.006, 12), (247, 243, 238))
        canvas.dot(x, 0.072, 0.0048, (38, 30, 34))
        canvas.line(
            curve((x - 0.009, 0.059), (x, 0.056), (x + 0.009, 0.059)), darker(hair, 0.2), 0.004
        )
        canvas.fill(ellipse(turn + sign * 0.026, 0.09, 0.008, 0.005, 10), _blush(skin))
    canvas.line(
        curve((turn, 0.076), (turn + 0.005, 0.088), (turn, 0.09)), darker(skin, 0.3), 0.0035
    )
    canvas.line(curve((turn - 0.012, 0.104), (turn, 0.109), (turn + 0.012, 0.104)), ink, 0.005)
    _draw_fringe(canvas, outfit)


def _blush(skin: tuple[int, int, int]) -> tuple[int, int, int]:
    return min(skin[0] + 8, 255), max(skin[1] - 16, 0), max(skin[2] - 12, 0)


def _draw_fringe(canvas: Canvas, outfit: Outfit) -> None:
    hair = rgb(outfit.hair)
    part = 0.016 * outfit.head_turn
    side_end = {"short": 0.062, "bun": 0.066, "ponytail": 0.068}.get(outfit.hair_style, 0.1)
    left = curve((part, 0.034), (-0.03, 0.042), (-0.043, 0.06), (-0.046, side_end))
    right = curve((0.046, side_end), (0.043, 0.06), (0.03, 0.042), (part, 0.034))
    crown = curve(
        (0.052, side_end),
        (0.055, 0.045),
        (0.036, 0.004),
        (0.0, -0.008),
        (-0.036, 0.004),
        (-0.055, 0.045),
        (-0.052, side_end),
    )
    canvas.fill(
        np.concatenate([left[::-1][::-1], path((-0.052, side_end)), crown[::-1], right]), hair
    )
    canvas.line(curve((-0.03, 0.012), (-0.008, 0.002), (0.02, 0.005)), lighter(hair, 0.22), 0.005)


def _draw_back_of_head(canvas: Canvas, outfit: Outfit) -> None:
    """Hair from behind, over the neck, so that nothing of the front is seen."""
    hair = rgb(outfit.hair)
    end = 0.165 if outfit.hair_style in ("short", "bun", "curly", "bob") else 0.255
    half = curve(
        (0.0, -0.008), (0.04, 0.006), (0.056, 0.06), (0.05, 0.12), (0.045, end - 0.015), (0.0, end)
    )
    canvas.outlined(both_sides(half), hair)
    for x in (-0.028, -0.01, 0.012, 0.03):
        canvas.line(curve((x * 0.5, 0.02), (x, 0.08), (x, end - 0.02)), contrast(hair, 0.2), 0.004)
    if outfit.hair_style == "bun":
        canvas.outlined(ellipse(0.0, 0.05, 0.03, 0.028), hair)
