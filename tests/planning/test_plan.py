import dataclasses
import json

import cli
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import vdit_2b
from data_pipelines.reading.row_lengths import row_lengths
from vdit import flops
from vdit.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, PlanConfig
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.lora_config import LoraConfig
from vdit.models.attention.splash import active_blocks
from vdit.planning import compile as compiling
from vdit.planning import estimate, result, search
from vdit.planning.chips import CHIPS, chip_of
from vdit.planning.cost import Cost
from vdit.planning.table import ranking, table

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({
        "data": {"row_tokens": 512, "row_examples": 16, "row_text": 64, "rows_per_step": 8},
        "model": {"width": 128, "depth": 3, "head_width": 64, "dtype": "bfloat16", "attention": "splash"},
        "mesh": {"replica": -1, "fsdp": 2},
        "plan": {"clips": ("9x128x128", "1x64x64:2"), "words": 8, "text_width": 32},
    })
"""
MODEL = Config(
    data=DataConfig(row_tokens=512, row_examples=16, row_text=64, rows_per_step=8),
    model=ModelConfig(width=128, depth=3, head_width=64, dtype="bfloat16", attention="splash"),
    mesh=MeshConfig(fsdp=2),
    plan=PlanConfig(clips=("9x128x128", "1x64x64:2"), words=8, text_width=32),
)
ASSUMED = estimate.Assumptions(estimate.EXPECTED_EFFICIENCY, 45e9, 3.125e9, 1.2)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """An empty cache for this file: what is compiled for one test serves the others."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(compiling, "cache_dir", lambda: cache)
        yield


def planned(topology="v5e:2x2", slices=1, config=MODEL):
    return result.plan(config, topology, slices, row_lengths(config), ASSUMED, search.budget_of(config))[0]


def test_command_on_a_slice(tmp_path, capfd):
    run = cli.runner(capfd)
    file, hlo = tmp_path / "config.py", tmp_path / "step.hlo"
    file.write_text(CONFIG)
    found = run("vdit.plan", f"--config={file}", "--topology=v5e:2x2", "--json", "--price=2", f"--dump_hlo={hlo}")
    assert found.status == 0, found.err
    values = json.loads(found.out)
    assert hlo.read_text().startswith("HloModule jit_step")
    assert values["fits"] and 0 < values["hbm_gib_per_chip"] < values["hbm_gib_limit"] == 15.75
    assert sum(values["memory_gib"].values()) == pytest.approx(values["hbm_gib_per_chip"], abs=2e-3)
    assert 0 < values["step_seconds_low"] <= values["step_seconds"] <= values["step_seconds_high"]
    assert values["mfu"] == pytest.approx(values["model_tflops_per_step"] / 4 / 197 / values["step_seconds"])
    assert values["tokens_per_second"] == pytest.approx(values["tokens_per_step"] / values["step_seconds"])
    assert values["cost"] == pytest.approx(2 * 4 * values["steps"] * values["step_seconds"] / 3600)
    assert values["collectives"]["all-gather"]["gib"] > 0
    assert not [name for name in values["collectives"] if "slices" in name]
    again = run("vdit.plan", f"--config={file}", "--topology=v5e:2x2")
    assert "fits, 15." in again.out and "model FLOP utilisation" in again.out


def test_compiled_flops_are_those_of_the_model_and_of_whole_blocks_of_attention():
    values, model, data = planned(), MODEL.model, MODEL.data
    # Rows of one block: 2 products forward, 5 back over all of it.
    attention = 7 * 2 * model.depth * model.width * data.rows_per_step * data.row_tokens**2
    total = values["model_tflops_per_step"] * 1e12
    squares = data.rows_per_step * data.row_tokens**2 / values["attention_overhead"]
    linear = total - 6 * 2 * model.depth * model.width * squares
    outside = values["compiled_over_model_flops_outside_attention"]
    assert values["compiled_over_model_flops"] * total == pytest.approx(attention + outside * linear)
    # Padding is computed too, and at this width what is done for every time of a row weighs more than in a real model.
    assert 1 / values["fill"] < outside < 1.3


def test_two_slices_meet_over_the_data_centre_network():
    values = planned(slices=2, config=dataclasses.replace(MODEL, mesh=MeshConfig(fsdp=4)))
    assert values["fits"] and values["chips"] == 8 and values["mesh"]["replica"] == 2
    between = values["collectives"]["all-reduce, between slices"]
    # Each chip exchanges its quarter of the gradient, in the dtype it is computed in.
    parameters = values["memory_gib"]["parameters"]
    assert 0.4 * parameters < between["gib"] < 1.6 * parameters


def test_what_was_compiled_is_not_compiled_again(monkeypatch):
    first = planned()
    monkeypatch.setattr(compiling, "_compile", lambda *_: pytest.fail("compiled again"))
    other = dataclasses.replace(MODEL, train=dataclasses.replace(MODEL.train, steps=7), plan=MODEL.plan)
    assert planned(config=other)["step_seconds"] == first["step_seconds"]
    with pytest.raises(pytest.fail.Exception):
        planned(config=dataclasses.replace(MODEL, model=dataclasses.replace(MODEL.model, depth=4)))


def test_a_step_that_does_not_fit_is_an_answer(monkeypatch):
    def step(*_):
        return jax.jit(lambda state, batch, rate: jnp.sort(jnp.ones((2**14, 2**14, 64)) * rate))

    monkeypatch.setattr(compiling, "make_train_step", step)
    config = dataclasses.replace(MODEL, seed=1)  # another key
    values = planned(config=config)
    assert not values["fits"] and values["step_seconds"] is None and values["collectives"] is None
    assert 64 <= values["hbm_gib_per_chip"] < 400 and values["hbm_gib_limit"] == 15.75
    assert "RESOURCE_EXHAUSTED" in values["problem"] and "\n" not in values["problem"]
    assert "does not fit" in table(values)
    assert set(values) == set(planned())


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("Used 20.51G of 15.75G hbm. Exceeded hbm capacity by 4.76G", 20.51),
        ("the total memory required for HLO temporaries (900.00G) exceeds available HBM (15.75G)", 900.0),
        ("temporaries (512.00M) exceeds available HBM (15.75G)", 0.5),
    ],
)
def test_what_is_needed_is_read_from_the_compilers_message(message, gib):
    assert compiling._needed(message) == pytest.approx(gib)


def test_a_kernel_that_does_not_fit_its_memory_says_nothing_of_hbm():
    assert np.isnan(compiling._needed("Ran out of memory in memory space vmem. Used 20.5M of 16.0M vmem."))


def test_clips_to_expect_become_rows():
    rows = row_lengths(MODEL)
    assert rows.interface.patch == 1 * 2 * 2 * 16 and rows.interface.text == 32 and not rows.pixels
    assert set(rows.patches) == {3 * 8 * 8, 4 * 4} and set(rows.caption_tokens) == {8}
    assert all(row.sum() <= 512 and len(row) <= 16 for row in rows.lengths)
    assert (rows.patches == 16).mean() == pytest.approx(2 / 3, abs=0.05)
    assert len(rows) >= 4 * MODEL.data.rows_per_step


def test_wan_14b_and_a_minute_of_video_have_the_tokens_they_are_known_for():
    def tokens(clip, row):
        plan = PlanConfig(clips=(clip,), words=0)
        return row_lengths(dataclasses.replace(MODEL, plan=plan, data=DataConfig(row_tokens=row))).patches[0]

    assert tokens("81x720x1280", 75_600) == 75_600
    assert tokens("1441x480x832", 563_200) == 563_160


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PlanConfig(), "names neither a data set"),
        (PlanConfig(clips=("81*64*64",)), "is not frames x height x width"),
        (PlanConfig(clips=("80x64x64",)), r"1 \+ k\*4 frames"),
        (PlanConfig(clips=("1x72x64",)), "do not divide into plan.patch"),
        (PlanConfig(clips=("81x720x1280",)), "takes 75664 slots and 64 of text, a row holds 512"),
    ],
)
def test_wrong_expectations(plan, message):
    with pytest.raises(UserError, match=message):
        row_lengths(dataclasses.replace(MODEL, plan=plan))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--topology=v5e:2x2"],
            "--config and --topology are both needed: python -m vdit.plan --config=configs/vdit_10b.py",
        ),
        (["--topology=v9:2x2"], "not of a known TPU version; known: v5e, v5p, v6e, tpu7x"),
        (["--topology=v5e:3x5"], "there is no such slice of v5e; there are 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        (
            ["--topology=v5e:2x2", "--config.model.attention=gpu"],
            "no kernel for TPUs; take --config.model.attention=sp",
        ),
        (["--topology=v5e:2x2", "--config.mesh.fsdp=3"], "needs 3 devices, there are 4"),
        (["--topology=v5e:2x2", "--config.data.rows_per_step=3"], "is not a multiple of the 4 row shards"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capfd, flags, message):
    file = tmp_path / "config.py"
    file.write_text(CONFIG)
    config = [] if "needed" in message else [f"--config={file}"]
    assert message in cli.runner(capfd)("vdit.plan", *config, *flags).error


@pytest.mark.parametrize(
    "name", ["v5e:16x16", "v5e:4x2", "v6e:8x8", "v5p:2x2x1", "v5p:4x4x8", "v5p:16x16x24", "v5p:8x4x12"]
)
def test_slices_that_there_are(name):
    assert chip_of(name) is CHIPS[name.split(":")[0]]


@pytest.mark.parametrize(
    "name",
    [
        "v6e:4x4x4",
        "v6e:16x32",
        "v5e:32x32",
        "v5p:8x8",
        "v5p:2x4x8",
        "v5p:4x4x6",
        "v5p:16x16x28",
        "tpu7x:1x1x1",
        "v5e:2",
    ],
)
def test_slices_that_there_are_not(name):
    with pytest.raises(UserError, match="there is no such slice of .*; there are "):
        chip_of(name)


@pytest.mark.parametrize("shape", ["", ":", ":axb", ":2x2x", ":0x2x2", ":02x2x1", ":-2x2", ":2*2", ": 2x2"])
def test_malformed_topologies(shape):
    with pytest.raises(UserError, match="is not VERSION:SHAPE, such as v5p:2x2x1") as error:
        chip_of("v5p" + shape)
    assert "\n" not in str(error.value)


def test_a_chip_of_two_devices():
    """Peak, HBM and network are of a device, price is of a chip; nobody lists one."""
    chip = CHIPS["tpu7x"]
    assert len(compiling.describe("tpu7x:2x2x1", 1)) == 8 and chip.devices == 2
    assert chip.peak * 2 == 2307e12 and chip.clock == pytest.approx(2.2e9, rel=1e-3) and chip.price is None


def test_a_plan_without_a_price_has_no_cost():
    free = dataclasses.replace(ASSUMED, price=None)
    values = result.plan(MODEL, "v5e:2x2", 1, row_lengths(MODEL), free, search.budget_of(MODEL))[0]
    assert values["fits"] and values["hours"] > 0 and values["cost"] is None
    text = table(values)
    assert "$" not in text and "no price known (--price)" in text
    assert "$" not in ranking([values]) and "unknown" in ranking([values])


def test_adapters_need_less_memory_and_no_gradient_of_the_weights():
    """The state shrinks, and a third of the products outside attention goes."""
    lora = dataclasses.replace(MODEL, lora=LoraConfig(rank=8))
    whole, adapted = planned(), planned(config=lora)
    memory = adapted["memory_gib"]
    assert memory["frozen weights"] > 0 and memory["optimiser"] < whole["memory_gib"]["optimiser"] / 4
    assert adapted["model_tflops_per_step"] < 0.9 * whole["model_tflops_per_step"]
    outside = "compiled_over_model_flops_outside_attention"
    assert 0.9 < adapted[outside] < 1.3


@pytest.mark.nightly
def test_adapters_of_a_2b_model_take_three_quarters_of_the_memory_and_four_fifths_of_the_time():
    """On four chips: all weights fit with remat "blocks" only, adapters with "attention"; each takes what fits it."""
    values = vdit_2b.get_config().to_dict()
    values["data"]["rows_per_step"], values["mesh"] = 1, {"context": 4}
    whole = build({**values, "model": {**values["model"], "remat": "blocks"}})
    lora = build({**values, "lora": {"rank": 16}})
    full, adapted = (planned("v5e:2x2", config=config) for config in (whole, lora))
    assert full["fits"] and adapted["fits"]
    assert not planned("v5e:2x2", config=dataclasses.replace(lora, lora=None))["fits"]
    assert adapted["hbm_gib_per_chip"] <= 0.75 * full["hbm_gib_per_chip"]
    assert adapted["step_seconds"] <= 0.8 * full["step_seconds"]


@pytest.mark.nightly
def test_muons_products_are_in_the_compiled_program():
    muon = dataclasses.replace(MODEL, optimizer=OptimizerConfig(method="muon"))
    with_muon, without = planned(config=muon), planned()
    compiled = [plan["compiled_over_model_flops"] * plan["model_tflops_per_step"] for plan in (with_muon, without)]
    assert without["muon_tflops_per_chip"] == 0
    assert compiled[0] - compiled[1] == pytest.approx(4 * with_muon["muon_tflops_per_chip"], rel=0.02)
    assert with_muon["memory_gib"]["optimiser"] < 0.8 * without["memory_gib"]["optimiser"]
    assert "Muon: of the compiled FLOPs" in table(with_muon)


@pytest.mark.nightly
def test_a_plan_of_chips_of_two_devices():
    values = planned("tpu7x:2x2x1", config=dataclasses.replace(MODEL, mesh=MeshConfig(fsdp=4)))
    assert values["chips"] == 4 and values["mesh"]["fsdp"] == 4 and values["mesh"]["replica"] == 2
    assert values["fits"] and values["hbm_gib_limit"] == 94.75 and "4 chips" in table(values)
    assert values["mfu"] == pytest.approx(values["model_tflops_per_step"] / 4 / 2307 / values["step_seconds"])


WAN = dataclasses.replace(
    MODEL,
    model=dataclasses.replace(MODEL.model, family="wan"),
    plan=PlanConfig(clips=("9x128x128", "1x64x64:2"), words=40),
)


@pytest.mark.parametrize(("backend", "block"), [("splash", 128), ("chunked", 64)])
def test_work_of_a_model_that_attends_to_captions_apart(backend, block):
    """FLOPs by the model's own count; blocks as its two attentions run over the packed rows."""
    config = dataclasses.replace(
        WAN,
        model=dataclasses.replace(WAN.model, attention=backend, attention_block=block),
        data=dataclasses.replace(WAN.data, row_tokens=1024, row_text=512),
    )
    rows = row_lengths(config)
    work = estimate.work_of(config, rows, Cost(), 4, 2)
    shape = flops.shape_of(config.model, rows.interface.patch, rows.interface.text)
    steps = len(rows) / config.data.rows_per_step
    assert work.model_flops == pytest.approx(
        flops.training_flops(shape, rows.patches, rows.caption_tokens).sum() / steps
    )
    pairs = flops.attending_pairs(True, rows.patches.astype(float), rows.caption_tokens).sum()
    linear = work.model_flops - 12 * config.model.width * config.model.depth * pairs / steps
    assert work.linear_flops == pytest.approx(linear)

    area, row = 0, slice(*rows.offsets[:2])
    runs = np.stack([rows.caption_tokens[row], rows.patches[row]], 1).ravel()
    ids, of_example = (np.repeat(np.arange(1, len(sizes) + 1), sizes) for sizes in (runs, runs[::2] + runs[1::2]))
    captions = np.repeat(np.arange(1, len(runs) // 2 + 1), runs[::2])
    for q_ids, k_ids in ((ids, ids), (of_example, captions)):
        if backend == "chunked":  # chunks start where a segment starts
            counts = [[-(-(x == n).sum() // block) for x in (q_ids, k_ids)] for n in range(1, q_ids.max() + 1)]
            area += sum(q * k for q, k in counts) * block**2
        else:
            for q in range(0, len(q_ids), block):
                mine = set(q_ids[q : q + block])
                area += block**2 * max(
                    1, sum(bool(mine & set(k_ids[k : k + block])) for k in range(0, len(k_ids), block))
                )
    assert estimate.executed_areas(config, rows)[0] == area


def test_search_counts_the_weights_of_both_attentions(monkeypatch):
    seen = []
    parameters = flops.parameters
    monkeypatch.setattr(search.flops, "parameters", lambda shape: seen.append(shape) or parameters(shape))
    search.meshes(WAN, "v5e:2x2", 1, row_lengths(WAN))
    assert [shape.cross for shape in seen] == [True]


def test_smaller_attention_blocks_run_slower():
    def speed(block, backend="splash"):
        return estimate.speed_of(ModelConfig(attention=backend, attention_block=block))

    assert speed(0) == speed(512) == speed(64, "chunked") == 1
    assert speed(128) < speed(256) < speed(384) < 1 < speed(1024)


def test_ring_times_of_collectives():
    chip, coordinates = CHIPS["v5p"], np.array([(x, y, 0) for x in range(4) for y in range(4)])
    one = dict(chip=chip, assumptions=dataclasses.replace(ASSUMED, link=90e9), coordinates=coordinates, slices=1)
    gather = estimate.Collective("all-gather", "", 3, 90 * 10**9, (0, 1, 2, 3), False)  # along y, a closed ring of 4
    assert estimate.collective_seconds(gather, **one, all_axes=True) == pytest.approx(3 * 0.75 / 2)
    reduce = dataclasses.replace(gather, kind="all-reduce", devices=tuple(range(16)), count=1)
    assert estimate.collective_seconds(reduce, **one, all_axes=True) == pytest.approx(2 * 15 / 16 / 4)
    assert estimate.collective_seconds(reduce, **one, all_axes=False) == pytest.approx(2 * 15 / 16 / 2)
    pair = dataclasses.replace(gather, kind="collective-permute", devices=(0, 1), count=1)
    assert estimate.collective_seconds(pair, **one, all_axes=True) == pytest.approx(1.0)
    between = dataclasses.replace(reduce, slices=True, bytes=10**9)
    assert estimate.collective_seconds(between, **one | {"slices": 4}, all_axes=True) == pytest.approx(1.5 / 3.125)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_the_planner_counts_the_blocks_that_splash_attention_runs(lengths):
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    segments_BL = np.pad(segments, (0, -len(segments) % 256 + 256))[None]
    active_BQK = active_blocks(segments_BL, segments_BL, 256)
    assert flops.attention_area(np.array(lengths), 256, 256) == active_BQK.sum() * 256**2


def test_search_adds_rows_and_recomputes_only_what_it_must(monkeypatch):
    """Over made-up plans: memory grows with rows and shrinks with recomputation."""
    need = {"none": 9.0, "attention": 5.0, "blocks": 3.0, "offload": 2.0}

    def plan(config, topology, slices, rows, assumptions, budget):
        mesh = config.mesh
        if mesh.context > 1:
            raise UserError("no ring")
        per_shard = config.data.rows_per_step // (mesh.replica * mesh.fsdp)
        gib = per_shard * need[config.model.remat] / mesh.tensor
        values = {"fits": gib <= 6, "hbm_gib_per_chip": gib, "mesh": mesh, "rows": per_shard, "budget": budget}
        seconds = 1 + list(need).index(config.model.remat) / 10 + (mesh.tensor > 1)
        return {**values, "remat": config.model.remat, "step_seconds": seconds, "tokens_per_second": 1 / seconds}, None

    monkeypatch.setattr(search, "plan", plan)
    found = search.search(MODEL, "v5e:2x2", 1, row_lengths(MODEL), ASSUMED, 100)
    first = [(p["rows"], p["remat"], p["fits"]) for p in found if p["mesh"] == MeshConfig(1, 4, 1, 1)]
    assert sorted(first) == [
        (1, "attention", True), (1, "none", False), (2, "attention", False), (2, "blocks", True),
        (4, "blocks", False), (4, "offload", False),
    ]  # fmt: skip
    assert [p["fits"] for p in found] == sorted((p["fits"] for p in found), reverse=True)
    fitting = [p["tokens_per_second"] for p in found if p["fits"]]
    assert fitting == sorted(fitting, reverse=True) and {p["mesh"].tensor for p in found} == {1, 2}
    assert {p["budget"] for p in found} == {MODEL.train.steps * 8}
    assert len(search.search(MODEL, "v5e:2x2", 1, row_lengths(MODEL), ASSUMED, 5)) == 5


def test_meshes_divide_the_model_and_hold_its_state():
    found = search.meshes(MODEL, "v5e:2x2", 2, row_lengths(MODEL))
    assert all(m.replica % 2 == 0 and m.replica * m.fsdp * m.context * m.tensor == 8 for m in found)
    assert {m.tensor for m in found} == {1, 2}  # there are two heads
    assert [m.tensor * m.context for m in found] == sorted(m.tensor * m.context for m in found)
    wide = dataclasses.replace(MODEL, model=dataclasses.replace(MODEL.model, width=4096, depth=16))
    assert {m.replica for m in search.meshes(wide, "v5e:2x2", 2, row_lengths(wide))} == {2}  # 49 GiB of state


def test_the_sources_that_name_a_compilation_are_those_of_the_step():
    found = compiling._imported("vdit.training.step")
    assert {
        "vdit.training.step",
        "vdit.models.attention.attention",
        "vdit.models.weights",
        "vdit.parallel.mesh",
    } < found
    assert not {name for name in found if "loop" in name or "checkpoint" in name or name == "vdit.config"}


def test_comments_do_not_make_a_kept_compilation_stale():
    code = compiling._code
    plain = code('"""Says so."""\ndef f(x):\n    """Twice."""\n    return 2 * x\n')
    assert plain == code('"""Says else."""\n\ndef f(x):\n    # a comment\n    return 2 * x\n')
    assert plain != code('"""Says so."""\ndef f(x):\n    """Twice."""\n    return 3 * x\n')
    assert code("kind = 'a'\n") != code("kind = 'b'\n")  # a text that is no docstring counts
