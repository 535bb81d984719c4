"""What is asked of the arguments of MONAI Label's endpoints, one function each: the arguments to call with, or a refusal."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import PurePosixPath
from typing import Any

import torch
from fastapi import HTTPException, UploadFile
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.utils.app import app_instance

from lib.core.images import SUFFIXES
from lib.server.auth import annotator_of
from lib.server.names import checked_extension, checked_id, checked_tag
from lib.server.params import BATCH_INFER, INFER, SCORING, TRAIN, allowed, json_object, with_client

logger = logging.getLogger(__name__)

_CHECKSUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]{32,128}")

Arguments = dict[str, Any]


def nothing(arguments: Arguments) -> Arguments:
    """No condition."""
    return arguments


def inference(arguments: Arguments) -> Arguments:
    """An image that is named or uploaded once; parameters that the model reads."""
    if not (arguments["image"] or arguments["session_id"] or arguments["file"]):
        raise HTTPException(400, "expected ?image=ID of a study, ?session_id= or a file, but got none; name the study")
    _known_model(arguments["model"])
    if arguments["output"] == "dicom_seg":
        raise HTTPException(
            400, "expected output as image, json or all, but got dicom_seg; submit the mask, it is stored as DICOM SEG"
        )
    params = _with_annotator(allowed(json_object(arguments["params"]), INFER), arguments)
    if arguments["file"]:
        _rename(arguments["file"], "upload")
    if arguments["label"]:
        _rename(arguments["label"], "scribbles", (*SUFFIXES, ".bin"))
    sessions = _app().sessions()
    if arguments["session_id"] and (sessions is None or sessions.get_session(arguments["session_id"]) is None):
        raise HTTPException(404, "expected the id of a session, but there is none of this id; create one")
    return {**arguments, "params": json.dumps(params)}


def batch(arguments: Arguments) -> Arguments:
    """Inference of many: of a known model, on what this machine has."""
    _not_in_server(arguments)
    _known_model(arguments["model"])
    params = {"save_label": True, **allowed(arguments["params"] or {}, BATCH_INFER, ("gpus", "logging"))}
    params.pop("logging", None)
    params["label_tag"] = "original"
    if not torch.cuda.is_available():
        params = {**params, "device": "cpu", "multi_gpu": False}
    return {**arguments, "params": params}


def train_one(arguments: Arguments) -> Arguments:
    """A training of one model, with the options that it shows."""
    _not_in_server(arguments)
    return {**arguments, "params": _training_options(arguments["model"], arguments["params"] or {})}


def train_all(arguments: Arguments) -> Arguments:
    """A training of each model: options by model, as OHIF sends them."""
    _not_in_server(arguments)
    params = arguments["params"] or {}
    trainers = _app()._trainers
    chosen = {name: params[name] for name in trainers if isinstance(params.get(name), dict)}
    return {**arguments, "params": {name: _training_options(name, options) for name, options in chosen.items()}}


def score_one(arguments: Arguments) -> Arguments:
    """A scoring pass that there is."""
    _not_in_server(arguments)
    if arguments["method"] not in _app()._scoring_methods:
        raise HTTPException(404, f"expected a scoring method, one of {', '.join(_app()._scoring_methods)}; choose one")
    return {**arguments, "params": allowed(arguments["params"] or {}, SCORING)}


def score_all(arguments: Arguments) -> Arguments:
    """All scoring passes, as they are."""
    _not_in_server(arguments)
    return {**arguments, "params": {}}


def next_sample(arguments: Arguments) -> Arguments:
    """A strategy that there is; who asks is the user who is logged in."""
    params = {k: v for k, v in (arguments["params"] or {}).items() if isinstance(k, str) and k != "strategy"}
    return {**arguments, "params": _with_annotator(params, arguments)}


def new_image(arguments: Arguments) -> Arguments:
    """A study with a name that stays inside the studies, of a type that can be read, which replaces no other study."""
    file, name = arguments["file"], _basename(arguments["file"].filename)
    suffix = checked_extension(name)
    image = checked_id(arguments["image"] or name[: -len(suffix)], "image id")
    if image in _app().datastore().list_images() and not _same_content(file, _app().datastore().get_image_uri(image)):
        raise HTTPException(409, f"expected a new study, but {image!r} is the name of another one; rename it")
    file.filename = f"{image}{suffix}"
    return {**arguments, "image": image, "params": json.dumps(json_object(arguments["params"]))}


def remove_image(arguments: Arguments) -> Arguments:
    """Studies are removed by an administrator who is known, otherwise in the folder or the PACS itself."""
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        raise HTTPException(
            403, "expected studies to stay, but got the removal of one; remove it from the folder or PACS"
        )
    return arguments


def checksum(arguments: Arguments) -> Arguments:
    """A checksum that can be compared."""
    given = arguments["check_sum"]
    if given and not _CHECKSUM.fullmatch(given):
        raise HTTPException(400, "expected check_sum as SHA256:, SHA512: or MD5: and digits; correct it")
    return arguments


def tag(arguments: Arguments) -> Arguments:
    """A tag that viewers use."""
    checked_tag(arguments["tag"])
    return arguments


def new_label(arguments: Arguments) -> Arguments:
    """A label with a usable tag and type; who sent it is the user who is logged in."""
    given = checked_tag(arguments["tag"] or "final")
    _rename(arguments["label"], "label")
    params = _with_annotator(json_object(arguments["params"]), arguments)
    return {**arguments, "tag": given, "params": json.dumps(params)}


def new_info(arguments: Arguments) -> Arguments:
    """What is remembered of an image or label: a JSON object."""
    if "tag" in arguments:
        checked_tag(arguments["tag"])
    return {**arguments, "info": json.dumps(json_object(arguments["info"], "info"))}


def new_label_params(arguments: Arguments) -> Arguments:
    """The old name of `new_info`."""
    checked_tag(arguments["tag"])
    return {**arguments, "params": json.dumps(json_object(arguments["params"]))}


def archive(arguments: Arguments) -> Arguments:
    """An archive of at least one labelled study."""
    if not _app().datastore().get_labeled_images():
        raise HTTPException(404, "expected submitted labels to pack, but there are none; submit a label first")
    return arguments


def new_session(arguments: Arguments) -> Arguments:
    """Files of types that can be read, no archive."""
    if _app().sessions() is not None and arguments["uncompress"]:
        raise HTTPException(400, "expected image files, but got an archive to unpack; upload the files themselves")
    for number, file in enumerate(arguments["files"]):
        _rename(file, f"image{number:04d}")
    return arguments


def plain_log(arguments: Arguments) -> Arguments:
    """The log as text: MONAI Label's page around it loads scripts from other servers."""
    return {**arguments, "html": False}


def gpu_tool(arguments: Arguments) -> Arguments:
    """A machine whose GPUs can be asked."""
    if shutil.which("nvidia-smi") is None:
        raise HTTPException(404, "expected nvidia-smi, but this machine has none; there is no GPU to report on")
    return arguments


def _with_annotator(params: dict[str, Any], arguments: Arguments) -> dict[str, Any]:
    who = annotator_of(arguments["user"], params.get("client_id"))
    return with_client({**params, "client_id": who} if who is not None else params)


def _app() -> MONAILabelApp:
    return app_instance()


def _known_model(name: str) -> None:
    names = ", ".join(_app()._infers)
    if name not in _app()._infers:
        raise HTTPException(404, f"expected the model {names}, but got {name[:100]!r}; choose it")


def _training_options(model: str, params: dict[str, Any]) -> dict[str, Any]:
    trainer = _app()._trainers.get(model)
    if trainer is None:
        names = ", ".join(_app()._trainers)
        raise HTTPException(404, f"expected a model to train, one of {names}, but got {model[:100]!r}; choose one")
    options = set(trainer.config()) - {"reason"}
    return allowed(params, TRAIN, options)


def _not_in_server(arguments: Arguments) -> None:
    if arguments.get("run_sync"):
        raise HTTPException(400, "expected a task of its own process, but got run_sync=true; leave it out")


def _basename(name: str | None) -> str:
    return PurePosixPath(str(name or "").replace("\\", "/")).name


def _rename(file: UploadFile, stem: str, types: tuple[str, ...] = SUFFIXES) -> None:
    """Only the type of an upload is taken from its name."""
    file.filename = f"{stem}{checked_extension(_basename(file.filename), types)}"


def _same_content(file: UploadFile, path: str) -> bool:
    with open(path, "rb") as known:
        while True:
            theirs, ours = file.file.read(1 << 20), known.read(1 << 20)
            if theirs != ours:
                file.file.seek(0)
                return False
            if not ours:
                file.file.seek(0)
                return True
