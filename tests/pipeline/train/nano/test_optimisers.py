"""Who is moved by what: Muon for matrices, a trunk by itself, at its own rate, without decay."""

from __future__ import annotations

import copy

import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.dense import dense_heads
from maskmill.pipeline.train.nano.optimisers import optimisers_of

LITE = StudentConfig(image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0")


def test_every_weight_is_moved_once_and_convolutions_never_by_muon() -> None:
    sam = build_student(LITE)
    heads = dense_heads(sam)
    made = optimisers_of(sam, heads)
    moved = [p for optimiser in made.each for group in optimiser.param_groups for p in group["params"]]
    assert len({id(p) for p in moved}) == len(moved)
    assert {id(p) for p in moved} == {id(p) for part in (sam, heads) for p in part.parameters()}
    assert all(p.ndim == 2 for group in made.each[0].param_groups for p in group["params"])
    (trunk,) = [group for group in made.each[1].param_groups if group.get("trunk")]
    assert trunk["weight_decay"] == 0.0
    assert len(trunk["params"]) == len(list(sam.image_encoder.trunk.parameters()))


def test_a_trunk_stands_still_at_a_rate_of_nothing_and_moves_at_its_own() -> None:
    torch.manual_seed(0)
    sam = build_student(LITE)
    made = optimisers_of(sam, dense_heads(sam))
    before = copy.deepcopy(sam.state_dict())
    for trunk_rate, moves in ((0.0, False), (1e-4, True)):
        loss = sam.image_encoder(torch.randn(1, 3, 64, 64)).square().mean()
        made.descend(loss, 1e-3, trunk_rate)
        changed = {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}
        assert any(name.startswith("image_encoder.trunk.") for name in changed) is moves
        assert any(name.startswith("image_encoder.from") for name in changed)
