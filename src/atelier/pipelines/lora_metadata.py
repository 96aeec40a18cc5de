"""The metadata of LoRA files as kohya's sd-scripts write it: every value is text, nested ones are JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from atelier.store import checkpoints, installation

#: The part of a file that the old short hash is made of.
_OLD_START, _OLD_COUNT = 0x100000, 0x10000


def text_of(value: Any) -> str:
    """A value as sd-scripts writes it: nested ones as JSON, the others as Python shows them.

    >>> text_of({"n_repeats": 10}), text_of(None), text_of(False), text_of(1e-4)
    ('{"n_repeats": 10}', 'None', 'False', '0.0001')
    """
    return json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Metadata with all values as text."""
    return {name: text_of(value) for name, value in values.items()}


def hashes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The hashes by which programs know the file: of its tensors, and the short one of older programs.

    Both are of the file with only the facts on training (`ss_...`).
    """
    kept = {name: value for name, value in metadata.items() if name.startswith("ss_")}
    header, body = checkpoints.tensor_bytes(state, kept)
    old = (header + body)[_OLD_START : _OLD_START + _OLD_COUNT]
    return {
        "sshs_model_hash": hashlib.sha256(body).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(old).hexdigest()[:8],
    }


def file_hashes(path: Path) -> tuple[str, str]:
    """The short and the full hash of a checkpoint, by which sd-scripts name the base model."""
    with path.open("rb") as file:
        file.seek(_OLD_START)
        old = file.read(_OLD_COUNT)
    return hashlib.sha256(old).hexdigest()[:8], installation.sha256(path)


def of_training(
    state: Mapping[str, Tensor], training: Any, data: Mapping[str, Any], facts: Mapping[str, Any], now: float
) -> dict[str, str]:
    """The metadata of a LoRA that was trained here.

    `training` are the settings of the run, `data` the facts on its folders, and `facts` its steps and
    seconds; `now` is the time at which the file is written. Settings that sd-scripts has and we do not are
    written as sd-scripts writes them when they are off.
    """
    step = int(facts.get("step", 0))
    epoch = -(-step // data["batches"])
    values = {
        **_network(training),
        **_run(training, data, facts, now),
        "ss_num_epochs": -(-training.steps // data["batches"]),
        "ss_epoch": epoch,
        "ss_steps": step,
        **_loss(training),
        **_base(training.pipeline),
        **_folders(training, data),
    }
    found = texts(values)
    return found | hashes(state, found) | _modelspec(training, now)


def _network(training: Any) -> dict[str, Any]:
    return {
        "ss_v2": False,
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": training.rank,
        "ss_network_alpha": training.alpha,
        "ss_network_args": {},
        "ss_network_dropout": None,
    }


def _run(training: Any, data: Mapping[str, Any], facts: Mapping[str, Any], now: float) -> dict[str, Any]:
    warm, cool = training.warmup, training.cooldown
    schedule = "constant_with_warmup" if warm else "constant"
    return {
        "ss_session_id": int(now * 1000) % 2**32,
        "ss_training_started_at": now - float(facts.get("seconds", 0)),
        "ss_training_finished_at": now,
        "ss_output_name": "lora",
        "ss_learning_rate": training.learning_rate,
        "ss_unet_lr": training.learning_rate,
        "ss_text_encoder_lr": training.text_learning_rate or None,
        "ss_num_train_images": data["images"],
        "ss_num_reg_images": 0,
        "ss_num_validation_images": training.held_back,
        "ss_num_batches_per_epoch": data["batches"],
        "ss_max_train_steps": training.steps,
        "ss_gradient_checkpointing": training.checkpointing,
        "ss_gradient_accumulation_steps": training.accumulate,
        "ss_lr_warmup_steps": warm,
        "ss_lr_scheduler": "linear" if cool else schedule,
        "ss_optimizer": "torch.optim.adamw.AdamW",
        "ss_max_grad_norm": training.clip,
        "ss_mixed_precision": "bf16" if training.half else "no",
        "ss_full_fp16": False,
        "ss_lowram": False,
        "ss_cache_latents": training.cache_latents,
        "ss_seed": training.seed,
        "ss_clip_skip": None,
        "ss_max_token_length": None,
        "ss_training_comment": None,
        "ss_sd_scripts_commit_hash": None,
    }


def _loss(training: Any) -> dict[str, Any]:
    return {
        "ss_noise_offset": training.noise_offset or None,
        "ss_adaptive_noise_scale": training.adaptive_offset or None,
        "ss_multires_noise_iterations": None,
        "ss_multires_noise_discount": 0.3,
        "ss_zero_terminal_snr": False,
        "ss_min_snr_gamma": training.min_snr or None,
        "ss_debiased_estimation": training.debiased,
        "ss_scale_weight_norms": training.largest_norm or None,
        "ss_ip_noise_gamma": None,
        "ss_loss_type": "l2",
        "ss_huber_schedule": "snr",
        "ss_huber_scale": 1.0,
        "ss_huber_c": 0.1,
        "ss_prior_loss_weight": 1.0,
        "ss_face_crop_aug_range": None,
        "ss_caption_dropout_rate": training.dropped,
        "ss_caption_dropout_every_n_epochs": 0,
        "ss_caption_tag_dropout_rate": training.tags_dropped,
    }


def _base(pipeline: str) -> dict[str, Any]:
    path = Path(pipeline).expanduser()
    found: dict[str, Any] = {"ss_sd_model_name": path.name, "ss_vae_name": None}
    if path.is_file():
        old, new = file_hashes(path)
        found |= {"ss_sd_model_hash": old, "ss_new_sd_model_hash": new}
    return found


def _folders(training: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """The facts on the data; there is one data set, without pictures that regularise."""
    return {
        "ss_batch_size_per_device": training.batch,
        "ss_total_batch_size": training.batch * training.accumulate,
        "ss_resolution": str((training.crop, training.crop)),
        "ss_color_aug": False,
        "ss_flip_aug": training.flip,
        "ss_random_crop": False,
        "ss_shuffle_caption": training.shuffle,
        "ss_keep_tokens": training.keep,
        "ss_enable_bucket": training.buckets,
        "ss_bucket_no_upscale": not training.upscale,
        "ss_min_bucket_reso": training.bucket_least,
        "ss_max_bucket_reso": training.bucket_most,
        "ss_bucket_info": {"buckets": data["buckets"], "mean_img_ar_error": data["mean_aspect_error"]},
        "ss_dataset_dirs": data["dataset_dirs"],
        "ss_reg_dataset_dirs": {},
        "ss_tag_frequency": data["tag_frequency"],
    }


def _modelspec(training: Any, now: float) -> dict[str, str]:
    """What programs show of a file: Stability's specification of 2023."""
    date = datetime.fromtimestamp(int(now), UTC).replace(tzinfo=None).isoformat()
    found = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "lora",
        "modelspec.resolution": f"{training.crop}x{training.crop}",
        "modelspec.date": date,
        "modelspec.prediction_type": "epsilon",
        "modelspec.encoder_layer": "1",
    }
    return found | ({"modelspec.trigger_phrase": training.trigger} if training.trigger else {})
