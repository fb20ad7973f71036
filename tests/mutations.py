"""Classic privacy bugs, planted one at a time into the code that ships, and the test that must fail
for each.

A bug is an edit of the source text of one function: the function's code object is replaced in
place, so every module that imported it runs the buggy one. Run as a script this file is a server:
it imports everything once and forks a child per request, so that no bug outlives its test and no
child pays for imports.

    request (a line on stdin)    the name of a mutation, or `control TEST`
    answer (a line on stdout)    {"failed": bool, "seconds": s, "says": the failure, in one text}
"""

import ast
import contextlib
import gc
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Edit:
    """In the function `module:qualified.name`, `old` (which occurs once) becomes `new`. Texts are
    compared token by token, so that it is no matter how the formatter broke the lines."""

    where: str
    old: str
    new: str

    def find(self) -> tuple[Any, str]:
        """The function and its source with `old` in it replaced."""
        module, _, path = self.where.partition(":")
        found: Any = reduce(getattr, path.split("."), importlib.import_module(f"sfumato.{module}"))
        function = inspect.unwrap(found.fget if isinstance(found, property) else found)
        source = textwrap.dedent(inspect.getsource(function))
        spans = occurrences(self.old, source)
        assert len(spans) == 1, (
            f"{self.where}: {self.old!r} occurs {len(spans)} times; update the edit"
        )
        start, end = spans[0]
        return function, source[:start] + self.new + source[end:]

    def plant(self) -> None:
        function, source = self.find()
        tree = ast.parse(source)
        tree.body[0].decorator_list = []  # type: ignore[attr-defined]
        made: dict[str, Any] = {}
        exec(compile(tree, f"<{self.where}, mutated>", "exec"), function.__globals__, made)
        code = made[function.__name__].__code__
        assert code.co_freevars == function.__code__.co_freevars, (
            f"{self.where}: an edit cannot reach other variables"
        )
        function.__code__ = code


def occurrences(part: str, source: str) -> list[tuple[int, int]]:
    """Where the tokens of `part` stand in `source`: (start, end) of each place."""
    wanted, found = [word for word, *_ in _tokens(part)], _tokens(source)
    words = [word for word, *_ in found]
    starts = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted]
    return [(found[i][1], found[i + len(wanted) - 1][2]) for i in starts]


_TOKEN = re.compile(
    r"""[rbfuRBFU]*(?:\"\"\".*?\"\"\"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\w+(?:\.\d+)?|\S""",
    re.S,
)


def _tokens(text: str) -> list[tuple[str, int, int]]:
    """(token, start, end) of each, without comments and without a comma before a closing bracket."""
    bare = re.sub(r"#[^\n\"']*$", lambda m: " " * len(m.group()), text, flags=re.M)
    every = [(m.group(), m.start(), m.end()) for m in _TOKEN.finditer(bare)]
    after = [word for word, *_ in every[1:]] + [""]
    return [
        token
        for token, then in zip(every, after, strict=True)
        if not (token[0] == "," and then in (")", "]", "}"))
    ]


@dataclass(frozen=True)
class Mutation:
    """caught_by: the test that fails. says: what it says, so that it fails for this reason and no
    other."""

    name: str
    edits: tuple[Edit, ...]
    caught_by: str
    says: str


def bug(name: str, where: str, old: str, new: str, caught_by: str, says: str) -> Mutation:
    return Mutation(name, (Edit(where, old, new),), caught_by, says)


GAUSSIAN, DRAW = ("noise.on_host:parts", "stream.standard_normal(out=room[:count])")
POISSON = "sampling.poisson:Poisson.indices"
FORK = "test_noise_fork.py::test_two_copies_that_round_differently_have_independent_noise"
NOISE_LAW = "test_sampling_noise.py::test_gaussian_noise_follows_the_law_its_event_claims"
SAMPLER_LAW = "test_sampling_noise.py::test_poisson_batches_follow_the_poisson_law[40-0.2-2000]"
CLIP_LAW = "test_clip_engine.py::test_an_example_is_clipped_as_the_slow_loop_would"
ROUNDED = "test_clip_precision.py::test_an_example_whose_positions_cancel_is_bounded"
BY_HAND = "test_training_loop.py::test_a_run_equals_the_published_algorithm_written_out"
END_TO_END = "test_run_samplers.py::test_plan_procedure_ledger_report_and_account_agree"
AS_SAMPLED = "test_run_samplers.py::test_the_releases_of_a_plan_are_the_events_of_its_sampler"
BY_UNIT = "test_unit_runs.py::test_one_unit_with_all_its_images_moves_every_release_by_at_most_its_sensitivity"
CLIPPED = (
    "clipped_grad(loss if most is None else unit_loss(loss), settings.clip_norm, normalized=True)"
)
ACROSS = ("train.spread:SpreadSum._over", "lax.psum(word,")
ON_DEVICES = "test_layout.py::test_sums_are_the_same_to_the_last_bit_on_any_number_of_devices_and_noise_is_added_once"
EXTREMES = "test_accountants_extremes.py"
NOT_PRIVATE = "test_not_private.py"
STRANGERS = "test_strangers.py"
SHIPPED = "test_shipped.py::test_one_image_moves_every_release_by_at_most_its_sensitivity"

MUTATIONS = (
    # -- noise
    bug("no noise", GAUSSIAN, DRAW, "np.zeros(count)", NOISE_LAW, "wrong scale"),
    bug(
        "noise for the mean added to the sum (scaled by the batch size)",
        "train.dpsgd:DPSGD.mechanism",
        "return self._noise.at(step, lambda each: release_name(self, each))",
        "return Gaussian(self._noise.multiplier / self.sampler.expected_batch_size)",
        BY_HAND,
        "close|is paid for",
    ),
    bug(
        "noise before averaging: every device adds its own, then the mean is taken",
        GAUSSIAN,
        DRAW,
        "stream.standard_normal((4, count)).mean(0)",
        NOISE_LAW,
        "wrong scale",
    ),
    bug(
        "noise scaled without the sensitivity",
        "noise.on_host:gaussian",
        "multiplier * sensitivity",
        "multiplier",
        NOISE_LAW,
        "wrong scale",
    ),
    bug(
        "the same noise in every step",
        "train.loop:run",
        "mechanism.bind(total, key.at(name))",
        "mechanism.bind(total, key.at(procedure.name))",
        BY_HAND,
        "close",
    ),
    bug(
        "the same noise for every class",
        GAUSSIAN,
        DRAW,
        "np.repeat(stream.standard_normal(count // 40), 40)",
        NOISE_LAW,
        "not normal|share noise",
    ),
    bug(
        "the same noise on each of two devices",
        GAUSSIAN,
        DRAW,
        "np.resize(stream.standard_normal(max(1, count // 2)), count)",
        "test_noise.py::test_no_two_numbers_of_a_release_share_noise",
        "share noise",
    ),
    bug(
        "the same noise for every leaf",
        GAUSSIAN,
        'key.stream("noise", name)',
        'key.stream("noise")',
        NOISE_LAW,
        "leaves share noise",
    ),
    bug(
        "fresh noise when a release is repeated",
        GAUSSIAN,
        'key.stream("noise", name)',
        "np.random.default_rng()",
        "test_sampling_noise.py::test_noise_is_a_function_of_key_and_release_name",
        "array_equal",
    ),
    bug(
        "noise without the digest of the sum",
        "noise.binding:under",
        'release.at("sum", seal)',
        "release",
        f"{FORK}[gaussian]",
        "without noise",
    ),
    bug(
        "the digest of a sum sees its shapes only",
        "noise.binding:bind",
        "header, *parts",
        "header",
        f"{FORK}[gaussian]",
        "without noise",
    ),
    bug(
        "the digest of correlated noise forgets earlier sums",
        "noise.banded:BandedStep.bind",
        'past[-1] if past else "first"',
        '"first"',
        "test_noise_fork.py::test_a_later_step_of_equal_sums_tells_nothing_of_earlier_ones",
        "without noise",
    ),
    bug(
        "noise is bound to the sum, not to its scale",
        "noise.gaussian:Gaussian.bind",
        ", self.multiplier)",
        ")",
        "test_noise_fork.py::test_another_scale_or_mechanism_has_noise_of_its_own",
        "share noise",
    ),
    bug(
        "a lost replay file is begun anew",
        "train.loop:_refuse_forgotten",
        "not replay_guard.knows(name)",
        "False",
        "test_noise_fork.py::test_without_its_replay_guard_a_run_is_not_repeated",
        "DID NOT RAISE",
    ),
    bug(
        "on the device all leaves draw the same words",
        "noise.on_device:lattice",
        'key.cipher_key("noise", name)',
        'key.cipher_key("noise")',
        "test_noise_device.py::test_leaves_releases_and_uses_have_keys_of_their_own",
        "leaves share noise",
    ),
    bug(
        "each device draws as if its part were the whole leaf",
        "noise.on_device:placed",
        "begins * count, apart",
        "0, apart",
        "test_noise_device.py::test_every_number_of_a_leaf_has_a_place_of_its_own_however_it_is_divided",
        "assert",
    ),
    bug(
        "the counter of the device's noise begins anew in every block",
        "noise.on_device:places",
        "block * np.uint32(size) + jnp.arange",
        "0 * block + jnp.arange",
        "test_noise_device.py::test_every_number_of_a_leaf_has_a_place_of_its_own_however_it_is_divided",
        "assert",
    ),
    bug(
        "the digest made on the device sees the upper halves of numbers only",
        "noise.on_device:_hashed",
        "low * words[2 * j] + high",
        "high",
        "test_noise_device.py::test_a_seal_made_on_the_device_is_of_names_shapes_types_and_numbers",
        "assert",
    ),
    bug(
        "a checkpoint is written from arrays that the next steps write into",
        "train.saver:Saver.save",
        "jax.tree.map(np.array, state)",
        "state",
        "test_saver.py::test_the_state_is_that_of_its_step_whatever_the_next_steps_write_into_it",
        "assert",
    ),
    bug(
        "lattice rounding is paid for in one leaf only",
        "noise.lattice:LatticeGaussian.release",
        "sum(leaf.size for leaf in leaves)",
        "leaves[0].size",
        "test_noise.py::test_rounding_is_paid_for_in_every_leaf[sizes1]",
        "every leaf",
    ),
    bug(
        "all fits of a tune run share noise",
        "runs.tuning:best_of",
        'key.at("fit", fit)',
        'key.at("fit", 0)',
        "test_procedure_laws.py::test_the_fits_of_a_tune_run_share_no_stream",
        "twice",
    ),
    bug(
        "features are chosen by the private gradient, not by the released one",
        "solve.fc:FeatureCovariance.absorb",
        "self._kept(released)",
        'self._kept(jnp.asarray(self._gradient_sum(self._transformed, state["weight"]).value))',
        "test_doubted.py::test_the_decision_is_made_by_what_was_released_and_by_nothing_else",
        "assert .*array_equal",
    ),
    bug(
        "linear heads sample the same rows in every step",
        "solve.sequence:Stages.measure",
        "indices(key, step)",
        "indices(key, 0)",
        "test_procedure_laws.py::test_who_takes_part_in_a_step_says_nothing_of_another[adam]",
        "not independent",
    ),
    bug(
        "a last ledger line without its newline is dropped",
        "core.files:whole_lines",
        "is_torn(last)",
        "True",
        "test_ledger.py::test_a_whole_last_line_counts_without_its_newline_too[3]",
        "assert",
    ),
    bug(
        "payments into a file that only has another name left",
        "privacy.ledger:Ledger._require_place",
        "there is None or not os.path.samestat(there, os.fstat(handle))",
        "os.fstat(handle).st_nlink == 0",
        "test_ledger.py::test_a_payment_that_nobody_could_read_is_refused[replaced-True]",
        "DID NOT RAISE|did not match",
    ),
    bug(
        "noise from a seed of 31 bits",
        "core.keys:_bits",
        'int.from_bytes(_derive(master, name, made.key_bytes), "big")',
        'int.from_bytes(_derive(master, name, 4), "big") % 2**31',
        "test_noise.py::test_every_stream_has_a_key_of_128_bits",
        "bits",
    ),
    bug(
        "rounding to the lattice is not paid for",
        "noise.lattice:lattice",
        "sensitivity / g + math.sqrt(d)",
        "sensitivity / g",
        "test_noise.py::test_rounding_is_paid_for[10000000000]",
        "assert",
    ),
    bug(
        "a run of rows that are mostly NaN is paid for",
        "data.finite:checked",
        "train.most",
        "False",
        "test_finite.py::test_rows_that_say_nothing_are_refused_before_anything_is_written[NaN-fit]",
        "Outcome|assert",
    ),
    bug(
        "an estimator's rows that are mostly NaN are paid for",
        "estimators.fitting:check_finite",
        "X.most",
        "False",
        "test_estimators.py::test_what_is_not_finite_is_refused_or_told_before_anything_is_paid",
        "DID NOT RAISE",
    ),
    bug(
        "a saved estimator holds what nobody decided about",
        "runs.saved:_write",
        "fields.check(_FILE, parse_json(text))",
        "None",
        "test_estimator_files.py::test_facts_that_cannot_be_are_refused_in_one_line",
        "DID NOT RAISE",
    ),
    bug(
        "fits of the same rows are taken for one",
        "estimators.fitting:UsedRows.add",
        "self._spent[place[old]] += epsilon",
        "self._spent[place[old]] += 0",
        "test_estimators.py::test_rows_that_are_used_again_are_counted_with_what_they_cost",
        "DID NOT WARN|did not match",
    ),
    # -- clipping
    bug(
        "correlated noise with more bands than groups",
        "privacy.events:CyclicPoissonEvent.__post_init__",
        "self.event.bands > self.cycle",
        "False",
        "test_noise_banded.py::test_bands_are_at_most_the_groups",
        "DID NOT RAISE",
    ),
    bug(
        "correlated noise with coefficients of another length",
        "noise.banded:square_root_bands",
        "product / np.linalg.norm(product)",
        "product / product[0]",
        "test_noise_banded.py::test_a_run_pays_for_its_busiest_group",
        "norm 1",
    ),
    bug(
        "correlated noise forgets its past when a run resumes",
        "noise.banded:BandedGaussian.unit_noise",
        "self._past, self._next = [], 0",
        "self._past, self._next = [], step",
        "test_noise_banded.py::test_a_stopped_run_goes_on_bit_by_bit[4]",
        "assert|equal",
    ),
    bug(
        "clipped per image, not per unit",
        "runs.jobs:_on_images",
        CLIPPED,
        "(lambda grad: lambda params, units, mask, *frozen: grad(params, jax.tree.map(lambda leaf: leaf.reshape(-1, "
        "*leaf.shape[2:]), units[0]), (units[1] & mask[:, None]).ravel(), *frozen))(clipped_grad(loss, settings.clip_norm, "
        "normalized=True))",
        f"{BY_UNIT}[dp-sgd on images]",
        "one unit moves the sum",
    ),
    bug(
        "a row for each image, not for each unit",
        "plan.unit_batches:examples",
        "units_of(source, most).mean_rows(rows, source.labels)",
        "rows, source.labels",
        f"{BY_UNIT}[ls]",
        "one unit moves the sum",
    ),
    bug(
        "one leaf is not clipped",
        "clip.factors:Clipper.__call__",
        "[factors[group] for group in self.of_leaf]",
        "[mask.astype(jnp.float32), *[factors[group] for group in self.of_leaf][1:]]",
        f"{CLIP_LAW}[mlp-book_keeping-influence]",
        "contributes",
    ),
    bug(
        "one leaf is left out of the norm",
        "clip.factors:Clipper.__call__",
        "zip(self.of_leaf, squared_norms, strict=True)",
        "list(zip(self.of_leaf, squared_norms, strict=True))[1:]",
        f"{CLIP_LAW}[mlp-book_keeping-influence]",
        "contributes",
    ),
    bug(
        "norms in float16",
        "clip.factors:clip_factors",
        "jnp.sqrt(squared_norms)",
        "jnp.sqrt(squared_norms).astype(jnp.float16).astype(jnp.float32)",
        f"{CLIP_LAW}[mlp-book_keeping-influence]",
        "contributes",
    ),
    bug(
        "norms behind standardized kernels forget epsilon",
        "clip.standardized:Standardized.scales",
        "(1 + self.epsilon * jnp.square(s)) / self.fan_in",
        "jnp.full_like(s, 2 / self.fan_in)",
        "test_clip_standardized.py::test_norms_behind_unit_variance_are_those_of_the_kernel[8-1-1-outer-1.0]",
        "close",
    ),
    bug(
        "norms by Gram forget what rounding c g leaves",
        "clip.parts:site_norms",
        "site.rule.arithmetic.error * mass",
        "0 * mass",
        f"{ROUNDED}[gram-gpu-bfloat16-book_keeping]",
        "contributes",
    ),
    bug(
        "norms of what is formed again forget what rounding c g leaves",
        "clip.parts:again",
        "GAMMA + site.rule.arithmetic.error",
        "GAMMA",
        f"{ROUNDED}[standardized, formed again-gpu-bfloat16-book_keeping]",
        "contributes",
    ),
    bug(
        "the sum is rounded to bfloat16 after the clip",
        "clip.parts:_weighted",
        "return scaling.weighted(site.rule, tape.data(path), tape.cotangents[path], factors, site.varies)",
        "return scaling.weighted(site.rule, tape.data(path), tape.cotangents[path], factors, "
        "site.varies).astype(jnp.bfloat16).astype(jnp.float32)",
        f"{CLIP_LAW}[mlp-book_keeping-influence]",
        "moves the sum by",
    ),
    bug(
        "clip factors are rounded to bfloat16",
        "clip.rules.base:weigh",
        "_per_example(factors, array)",
        "_per_example(factors.astype(jnp.bfloat16).astype(jnp.float32), array)",
        f"{CLIP_LAW}[mlp-book_keeping-influence]",
        "contributes",
    ),
    Mutation(
        "norms without scaling",
        (
            Edit(
                "clip.scaling:to_one",
                "return array * inverse",
                "inverse, exponent = jnp.ones_like(inverse), 0 * exponent\n"
                "    return array * inverse",
            ),
        ),
        "test_clip_hostile.py::test_a_huge_input_before_a_norm_is_bounded[0.01-book_keeping]",
        "contributes",
    ),
    Mutation(
        "a gain that nobody knows is taken for 1",
        (
            Edit(
                "clip.parts:_outer",
                "part.keeps or not all(handling.sites[path].origin.isometric for path in part.sites)",
                "False",
            ),
        ),
        "test_clip_hostile.py::test_a_canceling_example_behind_a_large_gain_is_bounded_wherever_the_gain_is"
        "[entry_of_a_diagonal-book_keeping]",
        "contributes",
    ),
    bug(
        "a collective in a loss is accepted",
        "clip.trace:check_collectives",
        "if names := J.named_axes(eqn):",
        "if names := []:",
        "test_clip_hostile.py::test_a_collective_in_a_loss_is_refused_in_one_line[True-pmean-book_keeping]",
        "DID NOT RAISE",
    ),
    bug(
        "a complex weight is matched",
        "clip.rules:rule_for",
        "if not all(real) and",
        "if False and",
        "test_clip_hostile.py::test_weights_that_are_complex_on_their_way_are_clipped_as_the_slow_loop_would[parts-book_keeping]",
        "close|complex",
    ),
    bug(
        "pixels of any size reach a network",
        "networks.input:Input.__call__",
        "public_pixels(image)",
        "image",
        "test_clip_hostile.py::test_no_network_sees_a_pixel_out_of_the_public_range[1.4e+17]",
        "assert",
    ),
    bug(
        "every layer clipped at C",
        "clip.factors:make_clipper",
        "float(clip_norm) / math.sqrt(len(found))",
        "float(clip_norm)",
        "test_clip_engine.py::test_a_clip_norm_is_shared_equally_by_groups[two_layers-book_keeping-hard-per_layer-parent]",
        "assert",
    ),
    Mutation(
        "the NaN guard is off",
        (
            Edit("clip.factors:Clipper.__call__", "mask & jnp.isfinite(sum(totals))", "mask"),
            Edit("clip.factors:clip_factors", "mask & jnp.isfinite(squared_norms)", "mask"),
        ),
        "test_training_loop.py::test_examples_of_nan_leave_the_model_finite_and_count_as_nothing",
        r"where False = close\(",
    ),
    bug(
        "the mask of padding is ignored",
        "clip.factors:Clipper.__call__",
        "mask & jnp.isfinite(sum(totals))",
        "jnp.isfinite(sum(totals))",
        f"{CLIP_LAW}[mlp-book_keeping-the_mask]",
        "array_equal",
    ),
    bug(
        "half the sensitivity is claimed",
        "clip.bounded_sum:Sensitivity.of_contribution",
        "add_or_remove=bound",
        "add_or_remove=bound / 2",
        f"{SHIPPED}[ls]",
        "one image moves the sum",
    ),
    # -- sampling
    bug(
        "shuffled epochs accounted as Poisson",
        POISSON,
        "size = int(stream.binomial(self.examples, self.q))\n    return subset(stream, self.examples, size)",
        "size = max(1, round(self.rate * self.n))\n    epoch, place = divmod(step, self.n // size)\n"
        "    return np.sort(key.stream('epoch', epoch).permutation(self.n)[place * size : (place + 1) * size])",
        SAMPLER_LAW,
        "not binomial",
    ),
    bug(
        "truncation that is not accounted",
        POISSON,
        "subset(stream, self.examples, size)",
        "subset(stream, self.n, min(size, round(1.2 * self.rate * self.n)))",
        SAMPLER_LAW,
        "not binomial",
    ),
    bug(
        "a truncated sampler that claims to be Poisson",
        "sampling.truncated:TruncatedPoisson.event",
        "if maximum >= self.examples:",
        "if True:",
        "test_samplers.py::test_batches_follow_the_law_of_their_event[truncated poisson-4]",
        "another law|excludes",
    ),
    bug(
        "a batch of fixed size that claims to be Poisson",
        "sampling.fixed:WithoutReplacement.event",
        "FixedSizeEvent(self.batch_size, self.examples,",
        "__import__('sfumato.privacy.events', fromlist=['x']).PoissonSampledEvent(self.batch_size / self.examples,",
        "test_samplers.py::test_batches_follow_the_law_of_their_event[fixed size-4]",
        "another law",
    ),
    bug(
        "truncation keeps the first examples",
        "sampling.truncated:TruncatedPoisson.indices",
        'size = min(int(stream.binomial(self.examples, self.q)), self._known("maximum"))\n    return subset(stream, self.examples, size)',
        "return subset(stream, self.n, int(stream.binomial(self.n, self.rate)))[:self.maximum]",
        "test_samplers.py::test_batches_follow_the_law_of_their_event[truncated poisson-4]",
        "another law",
    ),
    bug(
        "noise of replace-one scaled for add-or-remove",
        "privacy.relations:distance",
        "2.0 if relation == REPLACE_ONE else 1.0",
        "1.0",
        "test_relations.py::test_a_replaced_example_moves_a_gaussian_twice_as_far",
        "assert",
    ),
    bug(
        "a cycle counts the average of its groups",
        "privacy.relations:simplified",
        "max(turns.values())",
        "sum(turns.values()) / first.turns",
        "test_relations.py::test_a_cycle_costs_what_its_busiest_group_does",
        "assert|count",
    ),
    bug(
        "a plan that leaves truncation out of its price",
        "plan.spending:spend",
        "sampler.event(event(sigma))",
        "__import__('sfumato.sampling', fromlist=['x']).Poisson(sampler.q, sampler.steps, sampler.n).event(event(sigma))",
        f"{END_TO_END}[truncated-add-or-remove-one]",
        "epsilon_max|assert",
    ),
    bug(
        "a plan that counts all of a cycle in its first group",
        "privacy.events:CyclicPoissonEvent.at",
        "(self.phase + k) % self.cycle",
        "self.phase",
        f"{AS_SAMPLED}[4-cyclic]",
        "assert",
    ),
    bug(
        "a plan without the last, incomplete turn of a cycle",
        "privacy.releases:Release.tally",
        "len(range(k, self.count, turns))",
        "self.count // turns",
        f"{AS_SAMPLED}[4-cyclic]",
        "assert",
    ),
    bug(
        "noise calibrated for another relation than the run's",
        "train.sgd_settings:SGDSettings.paid",
        "budget.delta, budget.relation",
        "budget.delta",
        f"{END_TO_END}[full-replace-one]",
        "epsilon_max",
    ),
    bug(
        "the ledger of a run forgets its relation",
        "runs.directory:RunDirectory.create",
        'relation=plan["relation"]',
        'relation="add-or-remove-one"',
        f"{END_TO_END}[full-replace-one]",
        "assert",
    ),
    bug(
        "account forgets the relation",
        "cli.accounting:of_ledger",
        "accountants.epsilon(ledger.tally, delta, relation=ledger.relation)",
        "accountants.epsilon(ledger.tally, delta)",
        f"{END_TO_END}[full-replace-one]",
        "assert",
    ),
    bug(
        "a batch of fixed size where an example may be removed",
        "sampling.fixed:WithoutReplacement.asked_for",
        "wanted.relation == ADD_OR_REMOVE",
        "False",
        "test_run_samplers.py::test_the_python_face_refuses_alike",
        "DID NOT RAISE",
    ),
    bug(
        "batches with replacement",
        "sampling.base:subset",
        "replace=False, shuffle=False",
        "replace=True",
        SAMPLER_LAW,
        "replacement",
    ),
    bug(
        "a resumed run redraws its batch",
        POISSON,
        'key.stream("sample", step)',
        "np.random.default_rng()",
        "test_sampling_noise.py::test_a_batch_is_a_function_of_key_and_step_alone",
        "array_equal",
    ),
    bug(
        "half the sampling rate is claimed",
        "sampling.poisson:Poisson.event",
        "PoissonSampledEvent(self.q,",
        "PoissonSampledEvent(self.q / 2,",
        "test_sampling_noise.py::test_samplers_claim_the_event_of_their_law_and_divide_by_public_constants",
        "assert",
    ),
    bug(
        "the divisor is the realized batch size",
        "train.dpsgd:DPSGD._measured",
        "self.summed(state, found.value,",
        "self.summed(state, jax.tree.map(lambda leaf: leaf * self.sampler.expected_batch_size / max(len(self.sampler.indices(key, step)), 1), found.value),",
        BY_HAND,
        "close",
    ),
    # -- who sees what
    bug(
        "batch normalization",
        "runs.jobs:_on_images",
        "stored(train, indices)",
        "(lambda v: (v - v.mean((0, 1))) / (v.std((0, 1)) + 1e-3))(stored(train, indices))",
        f"{SHIPPED}[dp-sgd on images]",
        "one image moves the sum",
    ),
    bug(
        "features standardized by statistics of the private data",
        "runs.jobs:_rows",
        "extract(features, source, progress=progress.advance)",
        "(lambda rows: np.float32((rows - rows.mean(0)) / (rows.std(0) + 1e-6)))"
        "(extract(features, source, progress=progress.advance))",
        f"{SHIPPED}[dp-fc]",
        "one image moves the sum",
    ),
    bug(
        "joined maps take more of a row's norm than their groups say",
        "features.feature_map:Joined.__call__",
        "each(image) * share**0.5",
        "each(image) * share**0.25",
        "test_sides.py::test_joined_maps_keep_to_their_shares",
        "its group may have",
    ),
    bug(
        "the test set is trained on",
        "data.split:partition",
        "~is_test & ~is_validation & is_used",
        "~is_validation & is_used",
        "test_data_source.py::test_partition_covers_everyone_exactly_once",
        "assert",
    ),
    bug(
        "a unit is split over two examples",
        "data.units:Units.of",
        "np.asarray(owners, str)",
        "[f'{owner}/{k % 2}' for k, owner in enumerate(owners)]",
        f"{BY_UNIT}[ls]",
        "one unit moves the sum",
    ),
    bug(
        "images of one unit on two sides",
        "data.lazy:LazyDataset.open",
        "units or self.names",
        "self.names",
        "test_unit_runs.py::test_all_images_of_a_unit_are_on_one_side_and_the_facts_count_units",
        "two sides",
    ),
    bug(
        "an image that a table names twice is two examples",
        "data.formats.image_table:_places",
        "if there in seen:",
        "if written in seen:",
        "test_formats.py::test_wrong_tables_are_refused_by_row_and_column[the same file by another path]",
        "DID NOT RAISE",
    ),
    bug(
        "a table leads to files that its owner did not see",
        "data.formats.image_table:_places",
        'place.startswith("../")',
        'written.startswith("../")',
        "test_formats.py::test_wrong_tables_are_refused_by_row_and_column[out of the folder]",
        "DID NOT RAISE|leaves the table",
    ),
    bug(
        "a packed image is not compared with what its run fingerprints",
        "data.formats.packs:PackRecords.read",
        "!= self.digest(k)",
        "!= hashlib.sha256(content).digest()",
        "test_packs.py::test_an_image_in_the_place_of_another_is_noticed",
        "DID NOT RAISE",
    ),
    bug(
        "padding of a unit is taken from another",
        "data.units:Units.of",
        "np.where(present, place, 0)",
        "place % counts.max()",
        "test_units.py::test_every_image_is_in_its_own_unit_and_in_no_other",
        "padding|index|twice",
    ),
    bug(
        "held out by position in a shuffled list",
        "data.split:held_out",
        "np.fromiter((is_out(name) for name in names), bool)",
        "(lambda n: np.random.default_rng(seed).permutation(n) < fraction * n)(len(list(names)))",
        "test_data_source.py::test_nobody_changes_sides_when_another_joins_or_leaves",
        "assert",
    ),
    bug(
        "augmentation from the public seed",
        "runs.jobs:_on_images",
        "secret.words(",
        "SecretKey.from_insecure_seed(seed).words(",
        "test_augmentation.py::test_views_are_a_function_of_the_secret_key_and_not_of_the_public_seed",
        "array_equal",
    ),
    bug(
        "examples are mixed with each other",
        "runs.jobs:_on_images",
        "stored(train, indices)",
        "(lambda v: 0.5 * v + 0.5 * np.roll(v, 1, 0))(stored(train, indices))",
        "test_augmentations.py::test_what_is_fed_of_an_example_does_not_know_the_others",
        "array_equal",
    ),
    bug(
        "every view is clipped for itself",
        "runs.jobs:_on_images",
        CLIPPED,
        "(lambda one: lambda p, e, m, *f: (lambda each: type(each[0])(jax.tree.map(lambda *x: sum(x), *[s.value for s in each]), "
        "each[0].sensitivity))([one(p, ((e[0][0], jax.tree.map(lambda d: d[:, v : v + 1], e[0][1])), e[1]), m, *f) "
        f"for v in range(settings.views)]))({CLIPPED})",
        f"{SHIPPED}[dp-sgd on images]",
        "one image moves the sum",
    ),
    bug(
        "what was read ahead for another step is used",
        "train.feed:Feed.step",
        "if self._next != asked or self._read is None:",
        "if self._read is None:",
        "test_feed.py::test_any_step_may_be_asked_for_again_or_out_of_turn",
        "array_equal|not equal|assert",
    ),
    bug(
        "an image that cannot be read ends its step early",
        "data.ahead:ahead",
        "item = waiting.popleft().result()",
        "item = (lambda f: None if f.exception() else f.result())(waiting.popleft())",
        "test_feed.py::test_an_unreadable_image_is_an_error_of_its_own_step_and_nothing_is_paid_twice",
        "DID NOT RAISE",
    ),
    bug(
        "views go by the place in the batch",
        "augment.views:Views.draws",
        "self.words(each.stream(), step, indices, self.count * each.random)",
        "self.words(each.stream(), step, np.arange(len(indices)), self.count * each.random)",
        "test_views.py::test_a_view_depends_on_key_step_index_and_number_only",
        "array_equal",
    ),
    bug(
        "the average of weights is kept without noise",
        "train.loop:run",
        "state = procedure.absorb(state, step, released)",
        'state = {**procedure.absorb(state, step, released), "ema": procedure.absorb(state, step, total.value)["ema"]}',
        BY_HAND,
        "close",
    ),
    # -- accounting
    bug(
        "rounding of FFTs is not taken off delta",
        "privacy.losses:epsilon",
        "delta - grid.rounding",
        "delta",
        f"{EXTREMES}::test_what_rounding_may_hide_is_taken_off_delta",
        "assert",
    ),
    bug(
        "rounding of FFTs is taken off the delta that is told",
        "privacy.losses:deltas",
        "+ grid.rounding",
        "- grid.rounding",
        f"{EXTREMES}::test_what_rounding_may_hide_is_taken_off_delta",
        "assert",
    ),
    bug(
        "the loss of one step is forgotten",
        "privacy.losses:_composed",
        "count - first * times",
        "count - 1 - first * times",
        "test_accountants.py::test_a_rate_of_nearly_one_is_nearly_the_plain_gaussian",
        "assert",
    ),
    bug(
        "plain Gaussians beside samples count as nothing",
        "privacy.losses:_composed",
        "if mu > 0 else []",
        "if mu < 0 else []",
        "test_accountants.py::test_mixing_costs_more_than_each_and_less_than_the_sum_of_epsilons",
        "assert",
    ),
    bug(
        "the second kind of release is left out of a sum",
        "privacy.losses:_composed",
        "for each in found[1:]:",
        "for each in found[2:]:",
        "test_accountants.py::test_mixing_costs_more_than_each_and_less_than_the_sum_of_epsilons",
        "assert",
    ),
    bug(
        "noise multipliers add up, not their squares",
        "privacy.relations:simplified",
        "squares.append(busiest / plain.noise_multiplier**2)",
        "squares.append(1 / (busiest * plain.noise_multiplier) ** 2)",
        "test_accountants.py::test_squared_mu_adds_over_different_events",
        "assert",
    ),
    bug(
        "the group of a cycle that had the fewest turns counts",
        "privacy.relations:simplified",
        "max(turns.values())",
        "min(turns.values())",
        "test_relations.py::test_a_cycle_costs_what_its_busiest_group_does",
        "assert",
    ),
    bug(
        "a replaced example moves a sum by C only",
        "privacy.relations:distance",
        "2.0 if relation == REPLACE_ONE else 1.0",
        "1.0",
        "test_relations.py::test_a_replaced_example_moves_a_gaussian_twice_as_far",
        "assert",
    ),
    bug(
        "truncation costs nothing",
        "privacy.events:TruncatedPoissonEvent.privacy_loss",
        "pld.from_truncated_subsampled_gaussian_mechanism(self.n, self.rate, self.maximum, self.noise_multiplier,",
        "pld.from_gaussian_mechanism(self.noise_multiplier, sampling_prob=self.rate,",
        "test_relations.py::test_no_attack_on_a_truncated_batch_beats_its_event[8-0.5-3]",
        "assert",
    ),
    bug(
        "calibration accepts an epsilon above its target",
        "privacy.calibration:noise_multiplier",
        "<= target_epsilon, rough",
        "<= 1.01 * target_epsilon, 0.99 * rough",
        "test_accountants.py::test_calibrated_full_batch_noise_keeps_the_promise_and_wastes_nothing[1.0]",
        "assert",
    ),
    bug(
        "a Gaussian budget a little too large",
        "privacy.calibration:gaussian_mu_for",
        "* (1 - less)\n    while",
        "* (1 + 1e-4)\n    while 0 >",
        "test_accountants.py::test_the_gaussian_budget_is_the_largest_that_keeps_the_promise[1e-09-1.0]",
        "assert",
    ),
    bug(
        "a sampled fit is chosen after looking at another",
        "train.loop:run",
        "authorize(remaining, key.fingerprint)",
        "authorize(remaining)",
        "test_ledger.py::test_a_sampled_fit_joins_no_other_that_may_have_been_looked_at[first1-then1-False]",
        "data was looked at",
    ),
    # -- folders and units
    bug(
        "the folder of a patient is ignored: each image is a unit",
        "data.units:owners_by_pattern",
        "PurePosixPath(name).parent.name",
        "name",
        "test_data_layouts.py::test_a_folder_below_the_class_is_a_unit",
        "assert",
    ),
    bug(
        "a patient in two classes is two units",
        "data.units:owners_by_pattern",
        "PurePosixPath(name).parent.name",
        "str(PurePosixPath(name).parent)",
        "test_data_layouts.py::test_a_folder_below_the_class_is_a_unit",
        "assert",
    ),
    bug(
        "a patient in the training and in the validation part is accepted",
        "data.units:check_on_one_side",
        "set(train) & set(other)",
        "set()",
        "test_data_layouts.py::test_images_without_a_folder_and_folders_too_deep_are_refused",
        "DID NOT RAISE",
    ),
    bug(
        "validation images are trained on",
        "data.split:partition",
        "~is_test & ~is_validation & is_used",
        "~is_test & is_used",
        "test_data_source.py::test_partition_covers_everyone_exactly_once",
        "assert",
    ),
    # -- the ledger
    bug(
        "the ledger is written after the release",
        "train.loop:run",
        "ledger.spend(event, name, key.fingerprint, replay=replay_guard is not None)\n"
        "        total = procedure.measure(state, step, key.at(procedure.name))",
        "total = procedure.measure(state, step, key.at(procedure.name))\n"
        "        ledger.spend(event, name, key.fingerprint, replay=replay_guard is not None)",
        "test_ledger.py::test_every_release_is_paid_for_on_disk_before_data_is_measured",
        "before its payment",
    ),
    bug(
        "payments are not flushed to the disk",
        "core.files:append",
        "flush(handle)",
        "pass",
        "test_ledger.py::test_a_payment_is_flushed_to_the_disk_before_spend_returns",
        "assert",
    ),
    bug(
        "a noise name may be paid for twice",
        "privacy.ledger:Ledger.spend",
        "if not replay:",
        "if False:",
        "test_ledger.py::test_a_release_is_charged_once_per_key",
        "DID NOT RAISE",
    ),
    bug(
        "a copy of a ledger counts by itself",
        "privacy.ledger:Ledger.__deepcopy__",
        "return self",
        "return Ledger(self.path, _parse(self.path.read_bytes(), self.path)[0], self._handle)",
        "test_ledger.py::test_a_copy_is_the_ledger_itself_and_pickling_is_refused",
        "counts by itself|was edited|changed by another",
    ),
    bug(
        "a new run's directory is not flushed into its parent",
        "runs.directory:_rename_new",
        "sync_directory(path.parent)",
        "pass",
        "test_runs.py::test_of_two_runs_that_begin_at_once_one_is_refused",
        "on the disk",
    ),
    bug(
        "one key for two procedures: their releases share noise",
        "train.loop:run",
        "key.at(name))",
        "key.at(name.rpartition('/')[2]))",
        "test_training_loop.py::test_two_procedures_under_one_key_have_noise_of_their_own",
        "share noise",
    ),
    bug(
        "every run has the same key",
        "core.keys:SecretKey.from_entropy",
        "secrets.token_bytes(32)",
        "bytes(32)",
        "test_keys_files.py::test_entropy_keys_are_256_bits_secure_and_all_different",
        "assert",
    ),
    bug(
        "the lattice is stated and Gaussian noise is drawn",
        "runs.training:_fit",
        "NOISES[config.privacy.noise].keeping",
        "NOISES['gaussian'].keeping",
        "test_noise.py::test_a_run_on_the_lattice_from_the_command_line",
        "another mechanism",
    ),
    bug(
        "repeated sums are not compared",
        "train.replay_guard:ReplayGuard.check",
        "elif before != seal:",
        "elif False:",
        "test_training_loop.py::test_a_replay_guard_refuses_a_repetition_on_other_data",
        "DID NOT RAISE",
    ),
    bug(
        "two procedures share the key of their samples",
        "train.loop:run",
        "procedure.measure(state, step, key.at(procedure.name))",
        "procedure.measure(state, step, key)",
        "test_training_loop.py::test_two_procedures_under_one_key_sample_independently",
        "assert",
    ),
    bug(
        "names of streams lose their prefix",
        "core.keys:SecretKey.at",
        "self._prefix + name",
        "name[:1]",
        "test_keys_files.py::test_at_is_a_prefix_of_the_name",
        "assert",
    ),
    bug(
        "a budget that is not a number passes",
        "privacy.ledger:Ledger._require",
        "not needed <= self.epsilon_max",
        "needed > self.epsilon_max",
        "test_ledger.py::test_an_epsilon_that_is_no_number_refuses[nan]",
        "DID NOT RAISE",
    ),
    bug(
        "the secret key may be read by others",
        "core.keys:SecretKey.save",
        "0o600",
        "0o644",
        "test_keys_files.py::test_the_key_file_is_owner_only_whatever_the_umask_and_never_overwritten",
        "assert",
    ),
    # what is in the files
    bug(
        "the un-noised gradients are told in metrics.jsonl",
        "runs.recorder:Recorder.after_step",
        '"epsilon": epsilon}',
        '"epsilon": epsilon, "norm": float(self._procedure.fetch(__import__("numpy").arange(8), 0)[0][0].sum())}',
        "test_fields.py::test_a_run_writes_these_metrics_and_no_other",
        "nobody decided whether its field 'norm' is paid for",
    ),
    bug(
        "they are told under the name of another field",
        "runs.recorder:Recorder.after_step",
        '"seconds": now - self._began, "epsilon": epsilon}',
        '"seconds": float(self._procedure.fetch(__import__("numpy").arange(8), 0)[0][0].sum()), "epsilon": epsilon}',
        "test_fields.py::test_but_for_releases_no_file_depends_on_the_training_images[train]",
        "tell of the images",
    ),
    bug(
        "a choice's run tells its memory",
        "runs.tuning:_run",
        "write_result(directory, ledger, {})",
        'write_result(directory, ledger, {"peak_memory_bytes": __import__("resource").getrusage(0).ru_maxrss})',
        "test_fields.py::test_one_fit_and_twenty_leave_the_same_files",
        "how many fits",
    ),
    bug(
        "what attacks measured on private images is in the report",
        "report.facts:RunFacts.without_unpaid",
        "not self.audit.unpaid",
        "self.audit.unpaid",
        "test_fields.py::test_what_attacks_measure_on_private_images_is_the_owners_alone",
        "0.78",
    ),
    bug(
        "audit.json is for all to read",
        "audit.result:AuditRecord.save",
        "mode=0o600",
        "mode=0o644",
        "test_fields.py::test_what_attacks_measure_on_private_images_is_the_owners_alone",
        "0o600|384",
    ),
    # methods and parts of one's own
    bug(
        "code is imported because a file names it",
        "core.plugins:find",
        "name not in _allowed",
        "False",
        "test_plugins.py::test_a_model_of_plugins_predicts_only_if_the_user_trusts_it",
        "assert",
    ),
    bug(
        "another method goes on in the same directory",
        "runs.from_python:_refuse_another",
        "before.get(name) != now.get(name)",
        "False",
        "test_methods.py::test_another_method_in_the_same_directory_is_refused[loss]",
        "DID NOT RAISE",
    ),
    bug(
        "a method goes on with other private examples",
        "runs.session:refuse_elsewhere",
        'began.get("fingerprint") != examples.fingerprint()',
        "False",
        "test_methods.py::test_another_method_in_the_same_directory_is_refused[data]",
        "DID NOT RAISE|RunError|another sum",
    ),
    bug(
        "augmentation is the same in every step",
        "train.dpsgd:DPSGD._measured",
        'key.stream("augment", step)',
        'key.stream("augment")',
        "test_methods.py::test_augmentation_is_drawn_anew_for_every_example_and_step_and_never_from_its_neighbors",
        "assert",
    ),
    bug(
        "augmentation goes by the place in the batch",
        "train.feed:Indexed.__call__",
        "indices.astype(np.int32)",
        "np.arange(len(indices), dtype=np.int32)",
        "test_methods.py::test_augmentation_is_drawn_anew_for_every_example_and_step_and_never_from_its_neighbors",
        "Not equal to tolerance",
    ),
    # -- samplers and events that learn their facts from themselves
    bug(
        "a ledger's event with fields that nobody reads is counted without them",
        "privacy.event_base:_read",
        'set(value) != {"kind", *kinds}',
        "not set(value) >= set(kinds)",
        "test_ledger.py::test_an_unknown_kind_of_event_is_refused_not_ignored[value7]",
        "DID NOT RAISE",
    ),
    bug(
        "a batch size of all is taken for that of a group",
        "sampling.cyclic:_rate",
        "batch_size * cycle / n",
        "batch_size / n",
        "test_plugin_samplers.py::test_a_sampler_is_bound_to_its_data_set_later[CyclicPoisson-CyclicPoisson]",
        "assert",
    ),
    bug(
        "rounding of Rényi divergences is not added",
        "privacy.relations:_rounding",
        "np.where(a % 1 == 0, 2.0**-49 * a * np.log(a), 8 * math.exp(-30)) / (a - 1)",
        "np.zeros_like(a)",
        "test_accountants_extremes.py::test_divergences_that_rounding_made_negative_are_no_epsilon_of_zero[0.001-1e-05-1000000000]",
        "assert",
    ),
    # -- records
    bug(
        "a resume takes changed files for the same",
        "runs.session:refuse_elsewhere",
        'began.get("stamp") == examples.stamp',
        "began",
        "test_records.py::test_a_resume_reads_nothing_where_the_stamp_is_the_same_and_everything_else_where_not",
        "assert",
    ),
    bug(
        "the fingerprint does not see the bytes of files",
        "data.source:Source.fingerprint",
        "self.records.digests.tobytes()",
        "self.records.stamp()",
        "test_records.py::test_the_fingerprint_is_of_bytes_and_the_stamp_of_their_places",
        "touched, not changed",
    ),
    bug(
        "labels do not follow their images where some are left out",
        "data.listing:ListedPart.at",
        "self.labels[chosen]",
        "self.labels[: len(chosen)]",
        "test_data_folder.py::test_unreadable_files_are_counted_named_and_may_be_skipped[preloaded-None]",
        "assert",
    ),
    bug(
        "noise from outside is stated and the promised noise is drawn",
        "noise.base:Mechanism.keeping",
        "promised.drawn_as is cls",
        "True",
        "test_plugin_samplers.py::test_a_mechanism_from_outside_is_not_given_correlated_noise",
        "assert",
    ),
    bug(
        "what an epsilon means is told of half of it",
        "privacy.meaning:posterior",
        "(1 - prior)) + epsilon",
        "(1 - prior)) + epsilon / 2",
        "test_meaning.py::test_the_mechanism_that_is_as_bad_as_allowed_reaches_the_bounds_and_no_more[3.0]",
        "posterior",
    ),
    bug(
        "what was summed when the memory ran out counts twice",
        "train.dpsgd:DPSGD._measured",
        "total = self._add(total, params, examples, mask, *constants)",
        "total = self.kept = jax.block_until_ready(self._add("
        'jax.tree.map(jnp.copy, self.__dict__.get("kept", total)), params, examples, mask, *constants))',
        "test_physical.py::test_nothing_of_the_first_attempt_is_in_the_sum",
        "Not equal to tolerance",
    ),
    bug(
        "a page elsewhere may ask the service through a visitor's browser",
        "serving.service:_from_here",
        'origin is None or origin == f"http://{host}"',
        "True",
        "test_service.py::test_only_its_own_page_and_name_are_answered",
        "403",
    ),
    # -- several devices and processes
    bug(
        "each device adds its own noise",
        *ACROSS,
        "lax.psum(word + jax.random.randint(jax.random.key(lax.axis_index(FSDP)), word.shape, -(2**18), 2**18),",
        ON_DEVICES,
        "another sum on more devices|noise of another size",
    ),
    bug(
        "the sum is averaged over devices",
        *ACROSS,
        "lax.psum(word // self._layout.count,",
        ON_DEVICES,
        "another sum on more devices",
    ),
    bug(
        "processes draw different indices",
        "train.feed:Feed._steps",
        "members(self._sampler, key, step)",
        'members(self._sampler, key.at("process", self._layout.process), step)',
        "test_layout.py::test_all_processes_draw_the_same_batch_and_feed_it_once",
        "who is fed",
    ),
    bug(
        "the last device's padding counts",
        "train.feed:_parts",
        "examples), mask",
        "examples), mask | (np.arange(len(mask)) >= len(mask) - size)",
        "test_layout.py::test_over_processes_and_parts_every_index_is_fed_once[61-4-2]",
        "array_equal",
    ),
    bug(
        "pieces of a large leaf share noise",
        "noise.on_host:pieces",
        'key.at("piece", start // PIECE) if start else key',
        "key",
        "test_noise_pieces.py::test_no_two_pieces_of_a_leaf_share_noise[mechanism0]",
        "pieces share noise",
    ),
    bug(
        "the digest of a large sum sees its first piece only",
        "noise.on_host:sealed",
        "at[0][at[1] : at[1] + HASHED]",
        "at[0][:HASHED]",
        "test_noise_pieces.py::test_the_seal_of_a_large_sum_is_of_every_piece_and_of_their_order",
        "two sums have one seal",
    ),
    bug(
        "processes do not compare their keys before they pay",
        "runs.together:agree_on_beginning",
        "key.fingerprint",
        '""',
        "test_refused_processes.py::test_a_run_goes_on_only_with_one_key_in_all_processes",
        "assert",
    ),
    bug(
        "processes do not compare their images before they pay",
        "runs.together:agree_on_beginning",
        'began["fingerprint"]',
        '""',
        "test_refused_processes.py::test_a_process_with_other_images_or_another_key_is_refused_before_the_first_payment"
        "[another_image-process 1 of 2 would train on other images than process 0;]",
        "assert",
    ),
    # -- findings
    bug(
        "of several findings the sensitivity is that of one column",
        "solve.quadratic:_clipped",
        "(error * error).sum(1)",
        "(error * error).max(1)",
        "test_findings.py::test_the_worst_findings_reach_the_bound_and_do_not_pass_it[gradient]",
        "assert",
    ),
    bug(
        "the clip of DP-SGD on features sees one finding of several",
        "solve.statistics:softmax_gradient",
        "length * jnp.sum(error * error, axis=1)",
        "length * jnp.max(error * error, axis=1)",
        "test_findings.py::test_one_row_with_all_its_findings_moves_every_release_by_at_most_its_sensitivity[dp-fc]",
        "a row moves more than the noise is for",
    ),
    bug(
        "a finding that is not known counts as one that is not there",
        "core.tasks:_Findings.error",
        "jnp.where(labels >= 0, chances - labels, 0.0)",
        "chances - jnp.maximum(labels, 0)",
        "test_findings.py::test_one_row_with_all_its_findings_moves_every_release_by_at_most_its_sensitivity[fc]",
        "what is not known is counted",
    ),
    bug(
        "a network learns from findings that are not known",
        "core.tasks:_Findings.loss",
        "jnp.where(labels >= 0, each, 0.0)",
        "each",
        "test_findings.py::test_dp_sgd_clips_all_findings_as_one_and_leaves_out_the_unknown[network]",
        "what is not known is counted",
    ),
    bug(
        "on macOS payments stay in the drive's own cache",
        "core.machine:flush",
        "if full is not None:",
        "if False:",
        "test_machine.py::test_macos_flushes_through_the_drives_own_cache[full]",
        "assert",
    ),
    bug(
        "a tracking tool is told more than the run's files hold",
        "runs.tracking:_Follower.written",
        "tracker = self._tracker",
        'tracker = self._tracker; found["batch"] = 1.0',
        "test_tracking.py::test_what_is_tracked_is_what_stands_in_files_that_others_may_read",
        "assert",
    ),
    # -- reaching out
    bug(
        "a rule for vmap may read the batch",
        "clip.trace:check_alone",
        'raise ArgumentError("loss", found, ALONE)',
        "pass",
        "test_reaching_out.py::test_a_loss_that_vmap_would_show_other_examples_is_refused_in_one_line[pure_callback]",
        "DID NOT RAISE",
    ),
    bug(
        "gradients of one's own may read the batch",
        "clip.trace:trace_loss",
        "if any(map(J.has_own_backward, J.equations(traced.jaxpr))):",
        "if False:",
        "test_reaching_out.py::test_a_loss_that_vmap_would_show_other_examples_is_refused_in_one_line"
        "[custom_vmap behind custom_vjp]",
        "DID NOT RAISE",
    ),
    bug(
        "a step may have less noise than it is paid for",
        "train.loop:kept",
        "mechanism.event.noise_multiplier < event.noise_multiplier",
        "False",
        "test_reaching_out.py::test_less_noise_than_is_paid_for_is_refused_before_it_is_paid",
        "DID NOT RAISE",
    ),
    bug(
        "a sampler may draw an example twice",
        "train.feed:members",
        "found[1:] > found[:-1]",
        "found[1:] >= found[:-1]",
        "test_reaching_out.py::test_a_sampler_that_draws_an_example_twice_or_none_that_there_is_is_refused[drawn0]",
        "DID NOT RAISE",
    ),
    bug(
        "processes deal examples by sizes of their own",
        "train.dpsgd:DPSGD.rehearse",
        'self._layout.agree("put examples together in other physical batches", self._sizes.entries)',
        "pass",
        "test_reaching_out.py::test_processes_agree_on_the_sizes_by_which_they_deal",
        "not compared",
    ),
    bug(
        "of very many examples rounding to words is not paid for",
        "train.spread:SpreadSum._stated",
        "own.wider(share - SHARE) if share > SHARE else own",
        "own",
        "test_reaching_out.py::test_of_very_many_examples_rounding_to_words_is_part_of_the_sensitivity",
        "further than is paid for",
    ),
    bug(
        "the device's noise is for a sum that was not rounded",
        "noise.on_device:gaussian",
        "sum(leaf.size for leaf in leaves)",
        "0",
        "test_reaching_out.py::test_noise_of_the_device_is_wider_by_what_rounding_the_sum_may_add",
        "not as wide",
    ),
    # -- runs that promise nothing
    bug(
        "a run without privacy is shown with the epsilon that it might have had",
        "privacy.relations:simplified",
        "plain, busiest = first.plain,",
        "plain, busiest = first.promised.plain,",
        f"{NOT_PRIVATE}::test_what_is_not_private_has_no_price_in_any_company[event0]",
        "inf",
    ),
    bug(
        "a ledger without budget pays for honest releases, too",
        "privacy.ledger:Ledger._require",
        "if not self.private and any(",
        "if False and any(",
        f"{NOT_PRIVATE}::test_a_ledger_pays_for_private_releases_or_for_others_never_for_both",
        "DID NOT RAISE",
    ),
    bug(
        "noise is added to a sum that nothing bounds",
        "noise.binding:_check_bounded",
        "if not math.isfinite(own.add_or_remove):",
        "if False:",
        f"{NOT_PRIVATE}::test_no_noise_hides_what_is_not_clipped[gaussian]",
        "DID NOT RAISE",
    ),
    bug(
        "the report of a run without privacy does not say so",
        "report.statement:warnings",
        "if facts.not_private:",
        "if facts.insecure:",
        f"{NOT_PRIVATE}::test_whoever_meets_a_run_without_privacy_is_told",
        "the report does not begin with the mark",
    ),
    bug(
        "the model of a run without privacy loses the mark",
        "runs.training:save_model",
        "if plan.not_private is not None:",
        "if plan.insecure:",
        f"{NOT_PRIVATE}::test_whoever_meets_a_run_without_privacy_is_told",
        "lost the mark",
    ),
    bug(
        "a method's sampler is exchanged once its feed draws by another",
        "train.dpsgd:DPSGD.__setattr__",
        'if name in self.__dataclass_fields__ and "_feed" in vars(self):',
        "if False:",
        f"{STRANGERS}::test_a_method_stays_as_it_was_made_so_that_its_price_is_that_of_its_draws",
        "DID NOT RAISE",
    ),
    bug(
        "noise is scaled for one relation and priced for another",
        "noise.binding:_check_bounded",
        "own.zero_out <= own.add_or_remove and own.replace_one <= 2 * own.add_or_remove",
        "True",
        f"{STRANGERS}::test_a_sum_that_noise_does_not_hide_is_not_released[replaced]",
        "DID NOT RAISE",
    ),
    bug(
        "a procedure is asked for its price twice",
        "train.loop:run",
        "ledger.spend(event, name,",
        "ledger.spend(procedure.event(step), name,",
        f"{STRANGERS}::test_the_event_that_noise_is_compared_with_is_the_one_that_is_paid",
        "assert",
    ),
    bug(
        "a ledger for patients pays for images",
        "estimators.fitting:PrivateClassifier._paying",
        "self.ledger.unit not in ALONE",
        "False",
        f"{STRANGERS}::test_a_ledger_for_groups_pays_for_no_fit_that_does_not_know_them",
        "DID NOT RAISE",
    ),
    bug(
        "private rows are taken for public ones",
        "solve.public_rows:check_public",
        "if 2 * both > min(shown, own) and own > 0.9 * len(private):",
        "if False:",
        f"{STRANGERS}::test_private_rows_are_no_public_ones",
        "DID NOT RAISE",
    ),
    bug(
        "a share of other images is joined",
        "runs.store:images_of",
        "return source.fingerprint(digest_of)",
        "return digest_of(source.labels.tobytes())",
        f"{STRANGERS}::test_a_store_is_not_continued_with_other_images",
        "assert",
    ),
    bug(
        "a number too large for a float asks for no privacy",
        "plan.promise:PrivacyConfig.check",
        "if self.budget == math.inf and self.epsilon != INFINITY:",
        "if False:",
        f"{NOT_PRIVATE}::test_only_the_word_asks_for_it[1e400]",
        "assert",
    ),
    # -- prices that are found quickly
    bug(
        "losses of a sample are inverted for the square of its rate",
        "privacy.sampled_losses:_at_once",
        "signed + np.log(1 / q)",
        "signed + np.log(1 / q**2)",
        "test_sampled_losses.py::test_it_is_the_librarys_own_distribution",
        "Not equal to tolerance",
    ),
    bug(
        "a divergence is taken from the lowest of the orders that are looked at together",
        "privacy.relations:_rising",
        "rdp.compute_epsilon(orders, found, delta)",
        "rdp.compute_epsilon(orders, [found[0]] * len(orders), delta)",
        "test_renyi_orders.py::test_the_search_ends_early_with_the_epsilon_of_all_orders",
        "assert",
    ),
)
BY_NAME = {each.name: each for each in MUTATIONS}


# -- the client


class Campaign:
    """A server in a process of its own, to which requests are put one after the other."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONPATH": path},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, request: str) -> dict[str, Any]:
        assert self._server.stdin is not None and self._server.stdout is not None
        print(request, file=self._server.stdin, flush=True)
        found = json.loads(self._server.stdout.readline())
        assert not found["errors"], f"{request}: the test did not run: {found['errors']}"
        return found

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


# -- the server


class Listener:
    """A pytest plugin that remembers why tests failed; an error outside a test's own code is no
    failure that counts."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.errors: list[str] = []
        self.passed = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            (self.failures if report.when == "call" else self.errors).append(report.longreprtext)
        self.passed += report.when == "call" and report.passed

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.errors.append(report.longreprtext)


def run_test(node: str) -> dict[str, Any]:
    import pytest

    listener = Listener()
    began = time.perf_counter()
    pytest.main(
        [
            f"{HERE}/{node}",
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "--hypothesis-seed=0",
            "-o",
            "addopts=",
        ],
        [listener],
    )
    return {
        "failed": bool(listener.failures),
        "passed": listener.passed,
        "errors": listener.errors,
        "seconds": time.perf_counter() - began,
        "says": "\n".join(listener.failures),
    }


def answer(request: str) -> dict[str, Any]:
    """In a child: plant, test."""
    if request.startswith("control "):
        return run_test(request.removeprefix("control "))
    mutation = BY_NAME[request]
    os.environ["PLANTED"] = request  # for processes that the test starts (layout_bench.py)
    for edit in mutation.edits:
        edit.plant()
    return run_test(mutation.caught_by)


def in_child(request: str) -> str:
    with tempfile.TemporaryFile("w+") as result:
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                said = answer(request)
            except BaseException:  # such as an edit whose text is no longer there
                said = {"errors": [traceback.format_exc()]}
            result.write(json.dumps(said))
            result.flush()
            os._exit(0)
        os.waitpid(child, 0)
        result.seek(0)
        return result.read() or json.dumps({"errors": ["the child died"]})


def serve() -> None:
    sys.path.insert(0, str(HERE))
    import conftest  # noqa: F401
    import pytest

    import sfumato

    every = [each.name for each in pkgutil.walk_packages(sfumato.__path__, "sfumato.")]
    others = (
        "dp_accounting.pld",
        "dp_accounting.rdp",
        "scipy.stats",
        "hypothesis",
        "optax",
        "sklearn.datasets",
        "matplotlib.figure",
        "clip_registry",
    )
    for module in (*every, *others):
        importlib.import_module(module)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        # imports all that pytest itself needs
        pytest.main(["--collect-only", "-p", "no:cacheprovider", f"{HERE}/test_names.py"])
    # No child looks through all this for garbage (pytest does when it ends), and has copies of the pages
    # for having done so.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(in_child(line.rstrip("\n")), flush=True)


if __name__ == "__main__":
    serve()
