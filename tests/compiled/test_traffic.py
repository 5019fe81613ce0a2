"""The counter of `benchmarks/compiled.py` on programs whose bytes are known."""

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks/traffic.py"
spec = importlib.util.spec_from_file_location("traffic", SOURCE)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

PROGRAM = """HloModule jit_step

%fused (p: f32[16,256]) -> f32[16,256] {
  %p = f32[16,256]{1,0:T(8,128)} parameter(0)
  ROOT %twice = f32[16,256]{1,0:T(8,128)} add(%p, %p)
}

ENTRY %main (a: f32[16,256], b: bf16[16,256]) -> (f32[16,256], bf16[16,256]) {
  %a = f32[16,256]{1,0:T(8,128)} parameter(0), sharding={replicated}
  %b = bf16[16,256]{1,0:T(8,128)(2,1)} parameter(1)
  %start = ((bf16[16,256]{1,0:T(8,128)(2,1)}), bf16[8,256]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%b)
  %there = bf16[8,256]{1,0:T(8,128)(2,1)S(1)} slice-done(%start)
  %copy-start = (f32[16,256]{1,0:T(8,128)S(1)}, f32[16,256]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copied = f32[16,256]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %loop = f32[16,256]{1,0:T(8,128)} fusion(%copied, %copied), kind=kLoop, calls=%fused
  %gathered = f32[16,256]{1,0:T(8,128)} all-gather(%loop), channel_id=1, dimensions={0}
  %kernel = bf16[16,256]{1,0:T(8,128)(2,1)} custom-call(%b, %there), custom_call_target="tpu_custom_call"
  %free = f32[16,256]{1,0:T(8,128)} custom-call(%loop), custom_call_target="ConcatBitcast"
  ROOT %both = (f32[16,256]{1,0:T(8,128)}, bf16[16,256]{1,0:T(8,128)(2,1)}) tuple(%gathered, %kernel)
}
"""


def test_every_operation_is_counted_once():
    wide, narrow = 16 * 256 * 4, 16 * 256 * 2
    found = module.traffic(PROGRAM)
    # the half that is read ahead, a copy to fast memory, the loop's result, the gather, and the kernel
    assert found.moved == narrow // 2 + wide + wide + 2 * wide + 2 * narrow
    assert (found.fusions, found.kernels, found.collectives) == (2, 1, {"all-gather": 1})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("f32[]", 4),
        ("f32[3,5]{1,0}", 60),
        ("f32[3,5]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[512,8,32]{1,2,0:T(8,128)}", 512 * 32 * 128 * 4),
        ("s8[4096,4096]{1,0:T(32,128)(4,1)}", 4096 * 4096),
        ("u8[40,128]{1,0:T(32,128)(4,1)}", 64 * 128),
        ("bf16[16,256]{1,0:T(8,128)(2,1)S(1)}", 0),
        ("pred[7]{0}", 7),
        ("(f32[2]{0}, (s32[3]{0}, u16[4]{0}))", 8 + 12 + 8),
    ],
)
def test_bytes_of_an_array_with_its_padding(shape, expected):
    assert module.bytes_of(shape) == expected
