"""What the default run leaves to `bash tests/nightly.sh`: combinations of what other tests show one by one.

Most of the time goes into compiling, so that a table of all combinations costs its number of entries. By default every
`SHARES`-th of them runs, from another one on in each table; a test that is named alone always does.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

SHARES = {
    "composition/test_changing_hyperparameters.py": {
        "test_a_schedule_that_looks_at_the_loss": 3,
        "test_each_changes_without_another_compilation": 3,
        "test_scheduled_hyperparameters_are_right_by_float64": 3,
        "test_swept_by_vmap": 3,
    },
    "composition/test_family.py": {
        "test_injected_hyperparameters": 4,
        "test_mapped_over_the_rate": 3,
        "test_masked_steps_its_leaves_alone": 3,
        "test_multi_steps_takes_the_average": 3,
    },
    "composition/test_injected_hyperparameters.py": {
        "test_a_mask_that_is_a_function_is_a_static_argument": 3,
        "test_half_precision_with_float32_hyperparameters_is_right_by_float64": 3,
        "test_narrow_moments_keep_their_types": 5,
    },
    "composition/test_table.py": {
        "test_between_stage_1_and_2_is_told_where_to_go": 3,
        "test_works_before_stage_1_between_2_and_3_and_after_3": 9,
    },
    "composition/test_wrappers.py": {
        "test_alone": 3,
        "test_branches_agree_in_type_for_any_mix_of_types": 5,
        "test_inject_hyperparams": 3,
        "test_donation_of_any_argument": 2,
        "test_gradient_through_three_steps": 2,
        "test_vmap_over_hyperparameters": 2,
        "test_vmap_over_parameters": 2,
        "test_without_jit": 2,
        "test_wrapped": 5,
    },
    "core/test_moments.py": {"test_the_largest_gradient_for_ever_leaves_a_finite_state": 3},
    "diagnostics/test_diagnose.py": {"test_finds_the_probe_wherever_it_stands": 3},
    "diagnostics/test_probe.py": {"test_no_bit_of_the_updates_changes": 6},
    "interop/test_moments.py": {"test_what_was_stored_is_stored_again_as_it_was": 3},
    "interop/test_optax.py": {"test_continues_with_equal_bits": 3},
    "interop/test_torch.py": {"test_goes_on_where_torch_stopped": 3},
    "kernels/pallas/test_call.py": {
        "test_codes_and_random_bits_are_those_of_xla": 20,
        "test_the_step_lowers_to_the_kernel": 3,
        "test_what_is_left_to_xla": 3,
    },
    "kernels/pallas/test_tile.py": {"test_a_tile_steps_as_the_composed_stages_do": 6},
    "kernels/pallas/test_view.py": {"test_thresholds_are_those_of_the_whole_leaf": 11},
    "kernels/test_call.py": {"test_results_are_in_the_leaf_they_belong_to": 4},
    "kernels/test_fused.py": {"test_state_and_update_are_those_of_the_composed_optimizer": 3},
    "kernels/test_parity.py": {
        "test_codes_and_random_bits_are_those_of_xla": 20,
        "test_float32_is_within_2_ulp_of_xla": 5,
        "test_from_zero_the_update_itself_is_within_2_ulp_of_xla": 3,
        "test_gradients_at_the_ends_of_the_range": 12,
    },
    "kernels/test_step.py": {"test_one_array_is_a_tree_as_well": 5},
    "optimizers/test_mars.py": {"test_the_norm_of_a_leaf_is_at_most_1": 3},
    "optimizers/test_parity.py": {"test_inside_a_training_step": 2, "test_op_by_op": 2},
    "optimizers/test_peers.py": {
        "test_jitted_float32": 3,
        "test_jitted_float64": 4,
        "test_op_by_op": 3,
    },
    "precision/test_master_weights.py": {
        "test_the_hidden_weights_are_those_of_float32_training_to_the_bit": 5,
        "test_the_same_op_by_op": 3,
    },
    "storage/test_floats.py": {
        "test_a_stored_moment_tracks_a_constant_gradient": 3,
        "test_no_finite_gradient_makes_an_infinite_state_or_a_long_step": 5,
        "test_squares_in_narrow_dtypes_neither_overflow_nor_vanish": 3,
    },
    "storage/test_int8.py": {"test_within_the_distance_of_two_codes": 3},
    "storage/test_rounding.py": {
        "test_a_sum_is_right_on_average_to_the_last_bit_of_its_addend": 16,
        "test_what_fits_stays": 3,
    },
    "test_checkpoints.py": {"test_a_truncated_file_raises": 2, "test_states_of_released_versions_go_on": 3},
    "test_docs.py": {"test_code_runs": 11},
    "test_inputs.py": {
        "test_derivatives_at_a_zero_gradient": 3,
        "test_tiny_epsilon_leaves_zero_at_zero_and_steps_bounded": 3,
        "test_unusual_trees_give_what_optax_gives": 3,
    },
    "storage/test_pairs.py": {"test_no_step_is_longer_than_twice_the_exact_longest": 17},
    "test_low_precision.py": {
        "test_the_effective_rate_after_a_drop_with_one_element_of_each_block_staying": 2,
        "test_low_moments_follow_float64_adam": 3,
        "test_modes": 12,
        "test_optax_wrappers": 6,
        "test_save_restore_continue_with_equal_bits": 3,
    },
    "test_promises.py": {
        "test_a_huge_gradient_saturates_and_decays": 3,
        "test_float16_gradients": 3,
        "test_precise_update_from_an_exact_state": 7,
        "test_types_never_move_and_one_compilation": 3,
    },
    "test_family.py": {
        "test_compiled_is_op_by_op_to_a_few_ulp": 2,
        "test_complex_parameters_turn_with_the_gradient_or_are_refused": 2,
        "test_half_precision_follows_float64": 2,
        "test_the_gradient_of_the_update_at_zero_is_finite": 2,
        "test_huge_finite_gradients_leave_a_finite_state_that_falls_again": 2,
        "test_types_never_move_and_it_compiles_once": 2,
        "test_types_never_move_with_x64": 3,
        "test_unusual_trees": 3,
        "test_zero_gradients_give_exactly_zero": 2,
    },
    "test_guard.py": {"test_a_storm_ends_where_the_stream_without_its_faulty_steps_does": 8},
    "test_hyperparameters.py": {"test_a_traced_or_vmapped_hyperparameter_does_what_a_number_does": 3},
    "loop/test_minimize.py": {"test_both_loops_have_the_bits_of_a_step_by_hand": 2},
    "test_types.py": {
        "test_types_never_move_in_variants": 4,
        "test_types_never_move_whatever_the_gradients_are": 4,
    },
    "testing/test_comparison.py": {"test_sees_every_difference": 3},
}

LEFT_OUT = re.compile(
    "|".join(
        [
            r"test_parity.py::test_jitted_float32\[\w+-constant",
            r"test_parity.py::test_jitted_float64\[(adam_|adamw-)",
            r"test_parity.py::test_jitted_float32_under_x64\[adam\]",
            r"test_parity.py::test_leaves_of_every_small_size",
            r"test_parity.py::test_inside_a_training_step\[(adam_nesterov|adam)-scan",
            r"test_parity.py::test_complex_to_a_few_ulp\[complex128",
            r"test_peers.py::test_jitted_float(32|64)\[(nadamw|adamaxw)",
            r"test_diagnose.py::test_finds_the_probe_wherever_it_stands\[(<lambda>[02]|with)",
            r"pallas/test_call.py::test_leaves_of_any_rank",
            r"test_family.py::test_half_precision_follows_float64\[(\w+w|adamw_atan2)\]",
        ]
    )
)
"""Those of which one says which are worth leaving out."""


def left_to_the_night(items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests that the default run does without."""
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tables[item.nodeid.removeprefix("tests/").partition("[")[0]].append(item)
    for name, entries in tables.items():
        file, _, function = name.partition("::")
        share = SHARES.get(file, {}).get(function, 1)
        first = zlib.crc32(name.encode()) % min(share, len(entries))
        yield from (x for i, x in enumerate(entries) if i % share != first or LEFT_OUT.search(x.nodeid))
