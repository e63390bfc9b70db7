"""Names that users type. A change here is a change for them: it belongs in CHANGELOG.md."""

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest
import typer

import mmalign
from mmalign import errors
from mmalign.cli import app
from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.schema import RecipeConfig, Section
from mmalign.config.temporal_schema import TemporalConfig
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.formats.prompt import Prompt

KEYS = {
    "": "recipe model engine vision data objective train stages",
    "model": "path reference precompute_reference token_reward teacher reference_update lora adapter quantize freeze "
    "dtype attn_implementation trust_remote_code",
    "model.teacher": "path contrast top_k",
    "model.reference_update": "kind every_steps mixup_alpha",
    "model.lora": "rank alpha dropout targets parts",
    "vision": "share cache_dir cache_max_gb",
    "data": "root format min_pixels max_pixels video max_refused_share allow_http train eval select relabel max_length "
    "num_workers",
    "data.select": "pair difficulty score_gap tags",
    "data.select.difficulty": "above at_least below at_most",
    "data.select.score_gap": "above at_least below at_most",
    "data.relabel": "how",
    "data.video": "sampling fps frames min_pixels max_pixels max_total_pixels decode_timeout_s decode_memory_gb "
    "cache_dir cache_max_gb",
    "objective": "name weight",
    "train": "output_dir per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps "
    "max_tokens_per_batch learning_rate lr_scheduler_type warmup_ratio warmup_steps weight_decay adam_beta1 "
    "adam_beta2 adam_epsilon max_grad_norm optimizer_from num_train_epochs max_steps save_steps save_total_limit "
    "eval_steps logging_steps shuffle seed bf16 gradient_checkpointing report_to threads",
    "stages": "name recipe start adapter optimizer reference model engine vision data objective train",
}
GENERATE_KEYS = {
    "": "recipe model server data sampling generate",
    "model": "path dtype attn_implementation quantize trust_remote_code answers_at_once",
    "server": "url model api_key_env length_name logprobs concurrency timeout_s attempts max_request_mb cache_dir",
    "data": "root format min_pixels max_pixels video max_refused_share allow_http prompts max_length",
    "data.video": KEYS["data.video"],
    "sampling": "max_new_tokens temperature top_p top_k repetition_penalty stop endless_after_tokens",
    "generate": "output_dir n seed threads",
}
TEMPORAL_KEYS = {
    "": "recipe model server data shots clips captions tellings perturbations pairs temporal",
    "model": GENERATE_KEYS["model"],
    "server": GENERATE_KEYS["server"],
    "data": "videos min_pixels max_pixels max_length decode_timeout_s decode_memory_gb max_refused_share",
    "shots": "least_frames least_s least_grey_range split_longer_than_s fewest most longest_s",
    "clips": "model dtype batch_size alike_above fewest most_share_of_a_group most_of_a_group frames",
    "captions": GENERATE_KEYS["sampling"],
    "tellings": GENERATE_KEYS["sampling"],
    "perturbations": "of how factors",
    "pairs": "most_length_ratio",
    "temporal": "output_dir seed threads",
}
VERBS = {
    "train": "config overrides --resume",
    "generate": "config overrides --resume",
    "pairs temporal": "config overrides --resume",
    "plan": "config overrides --memory-gb",
    "quickstart": "--output-dir --seed --threads",
    "report": "directory",
    "objectives": "name",
    "schema": "",
    "data show": "path --row --model --format --root --max-pixels --max-length --sampling --fps --frames "
    "--allow-network",
    "data view": "path --output --root --format --from-row --limit --quarantine --max-media-mb --overwrite "
    "--allow-network",
    "data relabel": "path options --how --output --list --format --max-refused-share --overwrite --allow-network",
    "data convert": "path out --to --format --max-refused-share --overwrite --allow-network",
    "data score": "path --model --as --output --against --format --root --batch-size --dtype --max-pixels --max-length "
    "--sampling --fps --frames --max-refused-share --overwrite --allow-network",
}
RECORDS = {
    Preference: "id prompt responses media ties label margin weight difficulty tags provenance",
    Prompt: "id prompt media tags provenance",
    Response: "messages score scores critique spans media model annotator",
    Span: "start end weight",
    Message: "role parts",
    MediaRef: "kind uri content frames sha256 span_s frame_indices",
}
ERRORS = "MmalignError ConfigError DataError RowError ModelError TrainingError CheckpointError"
OBJECTIVES = (
    "dpo cdpo robust ipo hinge dpo_norm exo discopop f_dpo ld_dpo sampo mask_dpo ddpo wpo rpo curry_dpo "
    "bco_pair bco nca sppo_hard apo_zero apo_down kto_pair aot aot_unpaired mpo simpo alphapo cpo cpo_simpo orpo tpo "
    "tpo_l sft mm_dpo da_dpo beta_dpo beta_dpo_implicit dama uni_dpo lcpo plackett_luce pro knowpat rrhf trpa "
    "infifpo infifpo_sum poft sppo sppo_single irepo selm xpo cream spa scir crm eurus "
    "tdpo1 tdpo2 sail dckd adpa aligndistil nextquill kto apo_zero_unpaired bco_unpaired "
    "mdpo chip povid v_dpo symmpo vista_dpo mixed_image"
)
NAMES_ELSEWHERE = "sigmoid sigmoid_norm exo_pair nca_pair tpo-l cyclealign selfee omni_dpo tdpo"
OPTIONS_OF_OBJECTIVES = (
    "beta gamma pairs label_smoothing epsilon sft_weight normalise f_divergence_type f_alpha_divergence_coef ld_alpha "
    "use_weighting edit_weight discopop_tau alpha desirable_weight undesirable_weight dpo_weight bco_weight "
    "list_weight best_factor reach rate gap_factor beta_scaling selected_share reliability reliability_rate mean_gap "
    "quality_rate settled_at focus good_score "
    "sources fusion clip count_reference offset least_probability exploration judge doubt quantile window warmup_steps "
    "confidence consistency_weight kl_weight token_rate "
    "positive_weights chosen_weight rejected_weight advantage_weight responses lead temperature "
    "contrast visual_weight visual_share anchor_weight anchor anchor_beta guidance symmetry_weight margin_weight "
    "irrelevant_share video_weight clip_weight frame_weight token_weight other_text "
    "threshold owed_weight history_weight"
)
ROW_FORMATS = (
    "mmalign swift scene llava rlhf_v mdpo mm_rlhf_ranked align_anything ranked vistadpo mm_rlhf llava_hound "
    "alpaca sharegpt layout_tokens layout trl"
)
WRITTEN_FORMATS = "mmalign trl sharegpt swift"
RELABELLINGS = {
    "reward_augmented": "goal place seed",
    "dpa": "scores angle draws text place seed",
    "swap": "",
    "pairs": "pairs",
    "curry": "",
    "nxn": "most_pairs most_uses seed",
}
MODEL_FAMILIES = (
    "qwen2_vl qwen2_5_vl qwen3_vl llava llava_next llava_onevision idefics3 smolvlm internvl mistral3 gemma3 paligemma"
)


def sections(root: type[Section], above: str = "") -> dict[str, type[Section]]:
    """Every section of the schema by its dotted name."""
    from mmalign.config.messages import _sections

    found = {above: root}
    for name, info in root.model_fields.items():
        for inner in _sections(info.annotation):
            found |= sections(inner, f"{above}.{name}".lstrip("."))
    return found


def verbs(command, above: str = "") -> dict[str, str]:
    """Every verb with its arguments and options."""
    if hasattr(command, "commands"):
        return {
            verb: line for name, one in command.commands.items() for verb, line in verbs(one, f"{above} {name}").items()
        }
    return {above.strip(): " ".join(parameter.opts[0] for parameter in command.params if parameter.name != "help")}


def test_version_is_the_packages():
    assert mmalign.__version__ == "0.1.0"


def test_keys_of_a_recipe():
    for schema, keys in ((RecipeConfig, KEYS), (GenerateConfig, GENERATE_KEYS), (TemporalConfig, TEMPORAL_KEYS)):
        assert {name: " ".join(section.model_fields) for name, section in sections(schema).items()} == keys


def test_verbs_and_options():
    assert verbs(typer.main.get_command(app)) == VERBS


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_fields_of_a_record(record):
    assert " ".join(field.name for field in dataclasses.fields(record)) == RECORDS[record]


def test_errors():
    made = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert made == set(ERRORS.split())


def test_objectives_formats_and_families():
    from mmalign.engine.families import FAMILIES
    from mmalign.objectives.options import OPTIONS
    from mmalign.objectives.presets import ALIASES, PRESETS
    from mmalign.sources.detect import SOURCES
    from mmalign.sources.write import TARGETS

    assert set(PRESETS) == set(OBJECTIVES.split())
    assert set(ALIASES) == set(NAMES_ELSEWHERE.split())
    assert set(OPTIONS) == set(OPTIONS_OF_OBJECTIVES.split())
    assert {source.name for source in SOURCES} == set(ROW_FORMATS.split())
    assert set(TARGETS) == set(WRITTEN_FORMATS.split())
    assert set(FAMILIES) == set(MODEL_FAMILIES.split())


def test_relabellings_and_their_options():
    from mmalign.pairs.relabel import HOWS, options_of

    assert {how: " ".join(name for name, _, _ in options_of(how)) for how in HOWS} == RELABELLINGS


def test_every_key_of_a_recipe_is_read_somewhere():
    package = Path(mmalign.__file__).parent
    read: set[str] = set()
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] == "config":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.arg):  # add_lora(**lora.model_dump())
                read.add(node.arg)
    named = [*KEYS.items(), *GENERATE_KEYS.items(), *TEMPORAL_KEYS.items()]
    unread = {f"{section}.{key}" for section, keys in named for key in keys.split() if key not in read}
    assert unread == set()
