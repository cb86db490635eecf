"""What people want changed about an assignment, and the assignment that comes of it.

A `Steering` says which features are banned, required or preferred, for all classes or for some. `solve_steered` puts it
into the assignment problem of a run and solves that again, starting from the assignment that the run has. Nothing here
reads or writes a run folder; `qpm_vision.steered_run` does.
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from qpm_opt import (
    Assignment,
    AssignmentProblem,
    InfeasibleProblemError,
    InvalidInputError,
    Progress,
    QPMError,
    Termination,
    normal_text,
    solve_assignment,
    verify,
)
from qpm_vision._reading import parse_yaml, read_given_text, shortened
from qpm_vision.assignment_diff import AssignmentDiff, diff_assignments
from qpm_vision.statistics import centred_bias, scale_bias

__all__ = ["Feature", "Steered", "Steering", "closest_class_pairs", "solve_steered", "steered_problem"]

Feature = int | str
"""A feature by its number in the backbone, or by the name that somebody gave it."""

_MOST = 1_000_000
"""Largest number that is added to a bias; objectives are about 100 to 1,000."""

_MOST_DIGITS = 18
"""Digits of the number of a feature; text of more is no number."""


@dataclass(frozen=True)
class Steering:
    """What is to change about which features are used.

    Everything is added to what the run was steered to before: what an earlier steering banned stays banned.

    Attributes:
        ban: Features that are not kept.
        require: Features that are kept.
        forbid: For some classes, features that do not describe them.
        assign: For some classes, features that describe them, and so are kept.
        prefer: What is added to the bias b of a feature, in units of the objective; negative: what it is to cost.
        border_bias: Times the scaled share of a feature that peaks on the border of its map (see `steered_problem`), it
            is added to b: positive for features that peak there, negative for features that do not.
        centre_bias: The same for how near the middle of its map a feature peaks: positive for features that peak near
            it, negative for features that peak far from it.
        stay: Added to b for every feature that the run keeps, so that a change is made only where it gains more. Many
            different sets of features are nearly as good as the best one; without it a small change can exchange many.
        contrast: Pairs of classes that share all features but one.
        closest_pairs: So many pairs of the most similar classes share all features but one as well.

    Raises:
        InvalidInputError: A value is malformed, or says the opposite of another.

    Example:
        >>> Steering(ban=(17, 203), prefer={31: 0.1}).to_dict()
        {'ban': [17, 203], 'prefer': {31: 0.1}}
    """

    ban: tuple[Feature, ...] = ()
    require: tuple[Feature, ...] = ()
    forbid: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    assign: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    prefer: Mapping[Feature, float] = field(default_factory=dict)
    border_bias: float = 0.0
    centre_bias: float = 0.0
    stay: float = 0.0
    contrast: tuple[tuple[str, str], ...] = ()
    closest_pairs: int = 0

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            **{name: _features(name, getattr(self, name)) for name in ("ban", "require")},
            **{name: _features_of_classes(name, getattr(self, name)) for name in ("forbid", "assign")},
            "prefer": _preferences(self.prefer),
            **{name: _number(name, getattr(self, name)) for name in ("border_bias", "centre_bias", "stay")},
            "contrast": _pairs(self.contrast),
            "closest_pairs": _count("closest_pairs", self.closest_pairs),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._refuse_contradictions()

    def __bool__(self) -> bool:
        """Whether anything is to change."""
        return bool(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and YAML can hold, without what is left at its default."""
        plain = {
            "ban": list(self.ban),
            "require": list(self.require),
            "forbid": {name: list(listed) for name, listed in self.forbid.items()},
            "assign": {name: list(listed) for name, listed in self.assign.items()},
            "prefer": dict(self.prefer),
            "border_bias": self.border_bias,
            "centre_bias": self.centre_bias,
            "stay": self.stay,
            "contrast": [list(pair) for pair in self.contrast],
            "closest_pairs": self.closest_pairs,
        }
        return {name: value for name, value in plain.items() if value}

    @classmethod
    def from_dict(cls, data: Any) -> Steering:
        """The inverse of `to_dict`; numbers of features may be text, as the keys of JSON objects are.

        Raises:
            InvalidInputError: A key is unknown, or a value is malformed.
        """
        if not isinstance(data, Mapping):
            raise InvalidInputError(f"A steering must have keys such as 'ban' and values. Got a {type(data).__name__}.")
        known = [item.name for item in fields(cls)]
        for key in data:
            if key not in known:
                raise InvalidInputError(f"The steering has the key {key!r}, which is not known.{_nearest(key, known)}")
        # A key without a value, such as one whose entries were all deleted, is as good as left out.
        return cls(**{key: value for key, value in data.items() if value is not None})

    def to_yaml(self) -> str:
        """The text of a file that `from_yaml` reads."""
        return yaml.safe_dump(self.to_dict(), allow_unicode=True, sort_keys=False, default_flow_style=None)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Steering:
        """Read a YAML file whose keys are the attributes, such as `assign: {cardinal: [31]}`.

        Args:
            path: The file; keys that are left out, or have no value, change nothing.

        Raises:
            InvalidInputError: It cannot be read, or says something malformed; names the file.
        """
        try:
            text = read_given_text(path)
        except (OSError, ValueError) as error:
            raise InvalidInputError(
                f"The steering must be a YAML file in UTF-8. Cannot read {os.fspath(path)!r}: {error}"
            ) from error
        try:
            return cls.from_text(text)
        except InvalidInputError as error:
            raise InvalidInputError(f"In {os.fspath(path)!r}: {error}") from error

    @classmethod
    def from_text(cls, text: str) -> Steering:
        """Read what `to_yaml` returns, or JSON.

        Raises:
            InvalidInputError: It is no YAML, or says something malformed.
        """
        try:
            data = parse_yaml(text)
        except ValueError as error:
            raise InvalidInputError(f"A steering must be YAML. Got {shortened(error)}") from error
        return cls.from_dict({} if data is None else data)

    def joined(self, other: Steering) -> Steering:
        """Both together; of numbers that both give, those of `other`.

        Raises:
            InvalidInputError: They contradict each other.
        """
        return Steering(
            ban=(*self.ban, *other.ban),
            require=(*self.require, *other.require),
            forbid=_merged(self.forbid, other.forbid),
            assign=_merged(self.assign, other.assign),
            prefer={**self.prefer, **other.prefer},
            border_bias=other.border_bias or self.border_bias,
            centre_bias=other.centre_bias or self.centre_bias,
            stay=other.stay or self.stay,
            contrast=(*self.contrast, *other.contrast),
            closest_pairs=other.closest_pairs or self.closest_pairs,
        )

    def resolved(self, n_features: int, class_names: Sequence[str], names: Mapping[int, str]) -> Steering:
        """The same with every feature by its number, and lists in order: equal where the same is asked for.

        Args:
            n_features: Features of the backbone.
            class_names: Names of the classes.
            names: Names of features by their number.

        Raises:
            InvalidInputError: A feature or a class does not exist; names the nearest one.
        """

        def of(key: str, listed: Iterable[Feature]) -> list[int]:
            return [_feature_number(key, feature, n_features, names) for feature in listed]

        known = [normal_text(name) for name in class_names]
        for key, mentioned in (
            ("forbid", [*self.forbid]),
            ("assign", [*self.assign]),
            ("contrast", [name for pair in self.contrast for name in pair]),
        ):
            for name in mentioned:
                if name not in known:
                    hint = _nearest(name, known)
                    raise InvalidInputError(f"The '{key}' parameter must name classes of the run. Got {name!r}.{hint}")
        return Steering(
            ban=tuple(sorted(of("ban", self.ban))),
            require=tuple(sorted(of("require", self.require))),
            forbid={name: tuple(sorted(of("forbid", listed))) for name, listed in self.forbid.items()},
            assign={name: tuple(sorted(of("assign", listed))) for name, listed in self.assign.items()},
            prefer=dict(zip(of("prefer", self.prefer), self.prefer.values(), strict=True)),
            border_bias=self.border_bias,
            centre_bias=self.centre_bias,
            stay=self.stay,
            contrast=tuple(sorted((min(pair), max(pair)) for pair in self.contrast)),
            closest_pairs=self.closest_pairs,
        )

    def _refuse_contradictions(self) -> None:
        banned = set(self.ban)
        for feature in self.require:
            if feature in banned:
                raise InfeasibleProblemError(
                    f"The steering both bans and requires feature {feature}. Drop one of the two."
                )
        for name, listed in self.assign.items():
            for feature in listed:
                if feature in banned:
                    raise InfeasibleProblemError(
                        f"The steering bans feature {feature} and assigns it to class {name!r}. Drop one of the two."
                    )
                if feature in self.forbid.get(name, ()):
                    raise InfeasibleProblemError(
                        f"The steering both forbids feature {feature} for class {name!r} and assigns it. Drop one of "
                        "the two."
                    )


@dataclass(frozen=True, repr=False)
class Steered:
    """What comes of a steering.

    Attributes:
        steering: What was asked for, every feature by its number.
        problem: The assignment problem with it.
        assignment: The best assignment found.
        diff: From the former assignment to this one.
    """

    steering: Steering
    problem: AssignmentProblem
    assignment: Assignment
    diff: AssignmentDiff

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold: the steering, how the search ended, and the difference."""
        found = self.assignment
        return {
            "steering": self.steering.to_dict(),
            "termination": found.termination.value,
            "status": found.status.value,
            "seconds": round(found.runtime, 3),
            "solver": found.solver,
            "diff": self.diff.to_dict(),
        }

    def table(self, names: Mapping[int, str] | None = None) -> str:
        """The difference and how the search ended, as lines of text; see `AssignmentDiff.table`."""
        found = self.assignment
        return f"solved        by {found.solver}, {found.termination.value} after {found.runtime:.1f} s\n" + (
            self.diff.table(names)
        )

    def __repr__(self) -> str:
        return f"Steered({self.steering.to_dict()})\n{self.table()}"


def solve_steered(
    problem: AssignmentProblem,
    previous: Assignment,
    steering: Steering,
    *,
    edge: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64] | None = None,
    names: Mapping[int, str] | None = None,
    solver: str = "auto",
    time_limit: float | None = 20.0,
    seed: int = 0,
    progress: Callable[[Progress], Any] | None = None,
) -> Steered:
    """Solve the problem of a run again as a steering wants it, starting from the assignment of the run.

    The bound that was proven for the run, plus the most that the changes of the bias can add, holds for the steered
    problem too, whose assignments are some of those of the run; the search begins with it.

    Args:
        problem: That of the run.
        previous: The assignment of the run, a solution of `problem`.
        steering: What is to change.
        edge: (n_features,) how rarely each feature peaks on the border, `Locality.edge`.
        offset: (n_features,) how far from the middle it peaks, `Locality.offset`; None: not known.
        names: Names of features by their number.
        solver: "auto" or a back end of `qpm_opt`.
        time_limit: Seconds; None: no limit.
        seed: Of everything random.
        progress: Called with a `qpm_opt.Progress`; a KeyboardInterrupt raised in it ends the search, and the best
            assignment so far is returned.

    Raises:
        InvalidInputError: The steering does not fit the problem.
        InfeasibleProblemError: No assignment can satisfy it.
        QPMError: None was found in the time, or the solver failed.
    """
    classes = _class_names(problem)
    resolved = steering.resolved(problem.n_features, classes, {} if names is None else names)
    changed = steered_problem(problem, previous, resolved, edge=edge, offset=offset)
    found = solve_assignment(
        changed,
        solver=solver,
        time_limit=time_limit,
        seed=seed,
        start=previous,
        upper_bound=_inherited_bound(problem, previous, changed),
        progress=progress,
    )
    if found.termination is Termination.INFEASIBLE:
        raise InfeasibleProblemError(
            "No assignment satisfies this steering, as the solver has proven. Drop some of what it requires, bans or "
            "wants alike."
        )
    if found.solution is None:
        if found.termination is Termination.INTERRUPTED:
            raise KeyboardInterrupt
        raise QPMError(
            f"No assignment that satisfies this steering was found within {found.runtime:.0f} s. Allow more time, or "
            "drop some of what it wants."
        )
    checked = verify(changed, found)
    if not checked.ok:
        raise QPMError(f"The solver {found.solver!r} returned an invalid assignment; please report this.\n{checked}")
    return Steered(resolved, changed, found, diff_assignments(problem, previous, changed, found))


def steered_problem(
    problem: AssignmentProblem,
    previous: Assignment,
    steering: Steering,
    *,
    edge: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64] | None = None,
) -> AssignmentProblem:
    """The problem of a run with what a steering wants.

    The border bias adds −border_bias · `scale_bias(edge)` to b: the scale of the locality bias of the method, within
    ±√10/10, lowest for the features that peak inside. The centre bias adds −centre_bias · `centred_bias(offset)`, taken
    over the features that vary: on the same scale, highest for those that peak nearest to the middle.

    Args:
        problem: That of the run.
        previous: The assignment of the run; says which features it keeps.
        steering: Every feature by its number.
        edge: (n_features,) how rarely each feature peaks on the border, `Locality.edge`.
        offset: (n_features,) how far from the middle it peaks, `Locality.offset`; None: not known.

    Raises:
        InvalidInputError: The steering does not fit the problem, or needs an offset that is not known.
        InfeasibleProblemError: It contradicts itself or what the problem has already.
    """
    classes = _class_names(problem)
    place = {name: position for position, name in enumerate(classes)}
    _refuse_unusable(problem, steering)
    bias = problem.feature_bias.copy()
    if steering.border_bias:
        bias -= steering.border_bias * scale_bias(edge)
    if steering.centre_bias:
        bias += steering.centre_bias * _centrality(problem, offset)
    bias[previous.selected] += steering.stay
    for feature, more in steering.prefer.items():
        bias[int(feature)] += more
    pairs = [(place[a], place[b]) for a, b in steering.contrast]
    pairs += closest_class_pairs(problem.class_similarity, steering.closest_pairs)
    return problem.replaced(
        feature_bias=bias,
        excluded_features=[*problem.excluded_features.tolist(), *steering.ban],
        required_features=[*problem.required_features.tolist(), *steering.require],
        forbidden_pairs=[*problem.forbidden_pairs.tolist(), *_locked(steering.forbid, place)],
        required_pairs=[*problem.required_pairs.tolist(), *_locked(steering.assign, place)],
        contrastive_pairs=[
            *problem.contrastive_pairs.tolist(),
            *((a, b, _all_but_one(problem.n_per_class, a, b)) for a, b in pairs),
        ],
    )


def _centrality(problem: AssignmentProblem, offset: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """How near the middle each feature peaks, (n_features,), on the scale of b; 0 for dead ones."""
    if offset is None:
        raise InvalidInputError(
            "The 'centre_bias' parameter needs to know how far from the middle of their maps features peak, which the "
            "statistics of a run of an earlier version do not say. Train the run again with `--redo statistics`, which "
            "repeats that stage and what follows it (for a steered run: the run that it goes back to), or use a "
            "'border_bias' below 0, which needs nothing new."
        )
    alive = np.setdiff1d(np.arange(problem.n_features), problem.dead_features)
    scaled = centred_bias(offset[alive])
    if not scaled.any():
        raise InvalidInputError(
            "The 'centre_bias' parameter needs maps in which some features peak nearer to the middle than others. Got "
            "maps in which all peak equally far from it; leave it out, or use larger images or a backbone of a smaller "
            "stride."
        )
    near = np.zeros(problem.n_features)
    near[alive] = -scaled
    return near


def closest_class_pairs(class_similarity: npt.NDArray[np.float64], n_pairs: int) -> list[tuple[int, int]]:
    """The pairs of classes whose similarities to the features correlate most, the most similar one first.

    Args:
        class_similarity: A, (n_classes, n_features).
        n_pairs: How many pairs.

    Returns:
        Positions of the classes of each pair, the smaller one first.

    Raises:
        InvalidInputError: There are not so many pairs.

    Example:
        >>> closest_class_pairs(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.2], [0.0, 1.0, 0.1]]), 1)
        [(1, 2)]
    """
    n_classes = len(class_similarity)
    most = n_classes * (n_classes - 1) // 2
    if n_pairs > most:
        raise InvalidInputError(
            f"The 'closest_pairs' parameter must be at most {most}, the pairs of {n_classes} classes. Got {n_pairs}."
        )
    rows = class_similarity - class_similarity.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, sizes, out=np.zeros_like(rows), where=sizes > 0)
    first, second = np.triu_indices(n_classes, 1)
    order = np.argsort(-(rows @ rows.T)[first, second], kind="stable")[:n_pairs]
    return [(int(first[position]), int(second[position])) for position in order]


def _inherited_bound(problem: AssignmentProblem, previous: Assignment, changed: AssignmentProblem) -> float | None:
    """What the bound of an assignment says about a problem that differs by more locks and by another bias."""
    if previous.bound is None:
        return None
    added = np.sort((changed.feature_bias - problem.feature_bias)[changed.candidates])
    return previous.bound + float(added[-changed.n_select :].sum())


def _refuse_unusable(problem: AssignmentProblem, steering: Steering) -> None:
    """Raise where a feature is wanted that cannot be kept, or a class is to have too many."""
    excluded, dead = set(problem.excluded_features.tolist()), set(problem.dead_features.tolist())
    wanted = [*steering.require, *(feature for listed in steering.assign.values() for feature in listed)]
    for feature in wanted:
        if feature in excluded:
            why = "it does not vary over the training images" if feature in dead else "an earlier steering banned it"
            raise InfeasibleProblemError(f"Feature {feature} cannot be required, because {why}. Require another one.")
    budgets = dict(zip(_class_names(problem), problem.n_per_class.tolist(), strict=True))
    for name, listed in steering.assign.items():
        if len(set(listed)) > budgets[name]:
            raise InfeasibleProblemError(
                f"The 'assign' parameter must give class {name!r} at most the {budgets[name]} features that describe "
                f"it. Got {len(set(listed))}."
            )
    if (steering.contrast or steering.closest_pairs) and problem.n_per_class.min() < 2:
        raise InfeasibleProblemError(
            "The 'contrast' parameter needs classes that are described by at least 2 features, so that two of them can "
            "share all but one. Got a run with n_per_class = 1."
        )


def _all_but_one(budgets: npt.NDArray[np.int64], first: int, second: int) -> int:
    """How many features two classes share that one feature tells apart."""
    smaller, larger = sorted((int(budgets[first]), int(budgets[second])))
    return smaller if smaller < larger else smaller - 1


def _locked(listed: Mapping[str, Iterable[Feature]], place: Mapping[str, int]) -> list[tuple[int, Feature]]:
    return [(place[name], feature) for name, features in listed.items() for feature in features]


def _class_names(problem: AssignmentProblem) -> tuple[str, ...]:
    labels = problem.class_labels
    return tuple(map(str, range(problem.n_classes) if labels is None else labels))


def _feature_number(key: str, feature: Feature, n_features: int, names: Mapping[int, str]) -> int:
    if isinstance(feature, str):
        numbers = {normal_text(name): number for number, name in names.items()}
        if feature not in numbers:
            hint = _nearest(feature, numbers) if numbers else " No feature of the run has a name; use numbers."
            raise InvalidInputError(f"The '{key}' parameter must name features of the run. Got {feature!r}.{hint}")
        return numbers[feature]
    if feature >= n_features:
        raise InvalidInputError(
            f"The '{key}' parameter must hold numbers of features from 0 to {n_features - 1}. Got {feature}."
        )
    return feature


# -- checks of what people write -----------------------------------------------------------------------------------


def _features(key: str, value: Any) -> tuple[Feature, ...]:
    if isinstance(value, str | int | np.integer):
        value = (value,)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise _wrong(key, "a list of features, by number or by name", value)
    return tuple(dict.fromkeys(_feature(key, item) for item in value))


def _feature(key: str, value: Any) -> Feature:
    if isinstance(value, str) and value.strip() and _can_be_written(value):
        text = normal_text(value.strip())
        return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else text
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise _wrong(key, "features, by number (0 or more) or by name", value)


def _features_of_classes(key: str, value: Any) -> dict[str, tuple[Feature, ...]]:
    if not isinstance(value, Mapping):
        raise _wrong(key, "names of classes, each with a list of features, such as {cardinal: [17]}", value)
    listed: dict[str, tuple[Feature, ...]] = {}
    for name, features in value.items():  # of a class that is there in two spellings all are meant
        spelled = _class_name(key, name)
        listed[spelled] = tuple(dict.fromkeys((*listed.get(spelled, ()), *_features(key, features))))
    return {name: features for name, features in listed.items() if features}


def _class_name(key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):  # YAML reads a class called 7 as a number
        return str(value)
    if not isinstance(value, str) or not value or not _can_be_written(value):
        raise _wrong(key, "names of classes as text (quote them in YAML where they look like something else)", value)
    return normal_text(value)


def _can_be_written(text: str) -> bool:
    """Whether no half of a character is in it, which escapes in YAML and JSON can make and no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _preferences(value: Any) -> dict[Feature, float]:
    if not isinstance(value, Mapping):
        raise _wrong("prefer", "features, each with a number, such as {17: 0.1}", value)
    return {_feature("prefer", feature): _number("prefer", more) for feature, more in value.items()}


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise _wrong(key, "a number", value)
    if not -_MOST <= value <= _MOST:  # neither is what is not a number
        raise _wrong(key, f"a finite number, at most {_MOST:,} in size", value)
    return float(value)


def _count(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise _wrong(key, "a whole number, 0 or more", value)
    return int(value)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    expected = "pairs of different classes, such as [[cardinal, robin]]"
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise _wrong("contrast", expected, value)
    pairs = []
    for pair in value:
        if isinstance(pair, str | Mapping) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise _wrong("contrast", expected, pair)
        first, second = (_class_name("contrast", name) for name in pair)
        if first == second:
            raise _wrong("contrast", expected, pair)
        pairs.append((first, second))
    return tuple(dict.fromkeys(pairs))


def _merged(
    one: Mapping[str, tuple[Feature, ...]], other: Mapping[str, tuple[Feature, ...]]
) -> dict[str, tuple[Feature, ...]]:
    return {name: (*one.get(name, ()), *other.get(name, ())) for name in dict.fromkeys((*one, *other))}


def _nearest(word: Any, known: Iterable[str]) -> str:
    listed = list(known)
    close = difflib.get_close_matches(str(word), listed, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(listed[:10])}{', …' if len(listed) > 10 else ''}."


def _wrong(key: str, expected: str, value: Any) -> InvalidInputError:
    # Values that a YAML file repeats by reference can be longer than any memory when they are written out.
    return InvalidInputError(f"The '{key}' parameter must hold {expected}. Got {reprlib.repr(value)}.")
