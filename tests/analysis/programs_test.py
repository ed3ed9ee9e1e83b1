"""Exchanges and products read off programs."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax.analysis import programs
from bitnet_jax.train.devices.mesh import make_mesh


def compiled(function, mesh, *arguments):
  shaped = [
    jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, spec))
    for a, spec in arguments
  ]
  return jax.jit(function).lower(*shaped).compile().as_text()


def test_gather_in_a_loop_counts_each_time():
  mesh = make_mesh(data=1, fsdp=8, tensor=1)
  whole = NamedSharding(mesh, PartitionSpec())

  def loop(x, weights):
    def step(x, w):
      return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None

    return jax.lax.scan(step, x, weights)[0]

  hlo = compiled(
    loop,
    mesh,
    (jnp.zeros((8, 64)), PartitionSpec("fsdp")),
    (jnp.zeros((5, 64, 64)), PartitionSpec(None, "fsdp")),
  )
  gathers = [c for c in programs.collectives(hlo) if c.kind == "all-gather"]
  total = sum(c.bytes_by_dtype().get("f32", 0) for c in gathers)
  assert total == 5 * 64 * 64 * 4


def test_sum_over_devices_is_found():
  mesh = make_mesh(data=8, fsdp=1, tensor=1)
  hlo = compiled(jnp.sum, mesh, (jnp.zeros((8, 4)), PartitionSpec("data")))
  (one,) = programs.collectives(hlo)
  assert one.kind == "all-reduce"
  assert one.shapes == (("f32", ()),)
  assert one.times == 1


def test_started_exchange_counts_what_arrives():
  hlo = """HloModule m

%body (p: (s32[], u8[4,8])) -> (s32[], u8[4,8]) {
  %g = (u8[1,8]{1,0}, u8[4,8]{1,0}, u32[]) all-gather-start(%x), channel_id=3
}

%condition (p: (s32[], u8[4,8])) -> pred[] {
  %n = s32[] constant(6)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: u8[1,8]) -> u8[4,8] {
  %loop = (s32[], u8[4,8]) while(%t), condition=%condition, body=%body
}
"""
  (one,) = programs.collectives(hlo)
  assert one.bytes_by_dtype() == {"u8": 6 * 32}


def test_products_are_named_by_their_dtypes():
  mesh = make_mesh(data=1, fsdp=1, tensor=1)
  everywhere = PartitionSpec()
  hlo = compiled(
    jnp.matmul,
    mesh,
    (jnp.zeros((32, 32)), everywhere),
    (jnp.zeros((32, 32)), everywhere),
  )
  assert programs.products(hlo) == ["f32 x f32 -> f32"]
