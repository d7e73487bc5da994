"""Databases of MASUKA 2 for tests: every older shape, with rows in every table."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

BCRYPT = "$2b$12$abcdefghijklmnopqrstuuFiT0pTcZ0g0D6V4w7pV0yZQd1b9nO3y"

USERS = """CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, username VARCHAR NOT NULL, email VARCHAR NOT NULL,
    hashed_password VARCHAR NOT NULL, is_active BOOLEAN, created_at DATETIME)"""
CHARACTERS_OLDEST = """CREATE TABLE characters (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR NOT NULL,
    user_id INTEGER NOT NULL, input_image_path VARCHAR NOT NULL, work_dir VARCHAR NOT NULL, status VARCHAR,
    created_at DATETIME, completed_at DATETIME)"""
CHARACTERS = """CREATE TABLE characters (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR NOT NULL,
    user_id INTEGER NOT NULL, input_image_path VARCHAR, dataset_id INTEGER, trigger_word VARCHAR,
    work_dir VARCHAR NOT NULL, status VARCHAR, created_at DATETIME, completed_at DATETIME)"""
SESSIONS = """CREATE TABLE training_sessions (id INTEGER NOT NULL PRIMARY KEY, character_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL, steps INTEGER, batch_size INTEGER, learning_rate FLOAT, train_dim INTEGER,
    rank_dim INTEGER, pulidflux_images INTEGER, status VARCHAR, progress FLOAT, log_file VARCHAR,
    started_at DATETIME, completed_at DATETIME, created_at DATETIME{error})"""
DRAWINGS = """CREATE TABLE inference_jobs (id INTEGER NOT NULL PRIMARY KEY, character_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL, prompt TEXT NOT NULL, optimized_prompt TEXT, lora_weight FLOAT, test_dim INTEGER,
    batch_size INTEGER, num_inference_steps INTEGER, do_optimize_prompt BOOLEAN, fix_outfit BOOLEAN,
    safety_check BOOLEAN, face_enhance BOOLEAN, status VARCHAR, output_paths TEXT, created_at DATETIME,
    completed_at DATETIME)"""
SETTINGS = """CREATE TABLE app_settings (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL,
    key VARCHAR NOT NULL, value TEXT, is_encrypted BOOLEAN, updated_at DATETIME)"""
DATASETS = """CREATE TABLE datasets (id INTEGER NOT NULL PRIMARY KEY, user_id INTEGER NOT NULL,
    name VARCHAR NOT NULL, trigger_word VARCHAR NOT NULL, caption_template TEXT, auto_caption BOOLEAN,
    resize_images BOOLEAN, crop_images BOOLEAN, flip_images BOOLEAN, quality_filter VARCHAR, image_count INTEGER,
    status VARCHAR, created_at DATETIME, updated_at DATETIME)"""
IMAGES = """CREATE TABLE dataset_images (id INTEGER NOT NULL PRIMARY KEY, dataset_id INTEGER NOT NULL,
    filename VARCHAR NOT NULL, original_filename VARCHAR NOT NULL, caption TEXT, processed BOOLEAN,
    created_at DATETIME)"""

COMMON = [USERS, DRAWINGS, SETTINGS]
SHAPES = {
    "first": [*COMMON, CHARACTERS_OLDEST, SESSIONS.format(error="")],
    "with data sets": [*COMMON, CHARACTERS, SESSIONS.format(error=""), DATASETS, IMAGES],
    "data sets, old characters": [*COMMON, CHARACTERS_OLDEST, SESSIONS.format(error=""), DATASETS, IMAGES],
    "with errors": [*COMMON, CHARACTERS_OLDEST, SESSIONS.format(error=", error_message TEXT")],
    "last": [*COMMON, CHARACTERS, SESSIONS.format(error=", error_message TEXT"), DATASETS, IMAGES],
}
AT = "2025-10-12 14:03:11.123456"
LATER = "2025-10-12 15:03:11"


def build(path: Path, statements: list[str], rows: dict[str, list[dict[str, Any]]]) -> Path:
    """The file with these tables and rows; a value for a column that is not there is dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        for table, values in rows.items():
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            for value in values if columns else []:
                kept = {name: v for name, v in value.items() if name in columns}
                slots = ", ".join("?" for _ in kept)
                db.execute(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({slots})", list(kept.values()))
        db.commit()
    return path


def installation(root: Path, shape: str = "last", **more: list[dict[str, Any]]) -> Path:
    """A MASUKA folder as it lay on Drive: database, media, a trained LoRA; returns the database.

    `more` adds rows to a table.
    """
    rows = clean_rows(root)
    for table, values in more.items():
        rows[table] = [*rows[table], *values]
    _picture(root / "media/1/aaa.png", "red", 64)
    _picture(root / "media/1/bbb.png", "blue", 48)
    _picture(root / "media/results/out1.png", "green", 32)
    lora = root / "scratch/mira/char/char.safetensors"
    lora.parent.mkdir(parents=True, exist_ok=True)
    lora.write_bytes(b"weights")
    return build(root / "database/masuka.db", SHAPES[shape], rows)


def clean_rows(root: Path) -> dict[str, list[dict[str, Any]]]:
    """One good row or more for every table of the last shape."""
    return {
        "users": [
            {"id": 1, "username": "sam", "email": "sam@example.org", "hashed_password": BCRYPT, "is_active": 1, "created_at": AT},
            {"id": 2, "username": "kim", "email": "kim@example.org", "hashed_password": BCRYPT, "is_active": 0, "created_at": AT},
        ],
        "datasets": [
            {"id": 5, "user_id": 1, "name": "Mira set", "trigger_word": "mira7", "caption_template": "a photo of {trigger} person",
             "auto_caption": 1, "resize_images": 0, "crop_images": 1, "flip_images": 1, "quality_filter": "strict",
             "image_count": 2, "status": "ready", "created_at": AT, "updated_at": LATER},
        ],
        "dataset_images": [
            {"id": 1, "dataset_id": 5, "filename": "aaa.png", "original_filename": "IMG 1.png", "caption": "mira7 smiles", "processed": 1, "created_at": AT},
            {"id": 2, "dataset_id": 5, "filename": "bbb.png", "original_filename": "IMG 2.png", "caption": None, "processed": 0, "created_at": AT},
        ],
        "characters": [
            {"id": 3, "name": "mira", "user_id": 1, "input_image_path": str(root / "media/1/aaa.png"), "dataset_id": 5,
             "trigger_word": "mira7", "work_dir": str(root / "scratch/mira"), "status": "completed", "created_at": AT, "completed_at": LATER},
            {"id": 4, "name": "zoe", "user_id": 2, "input_image_path": "/gone/zoe.png", "dataset_id": None,
             "trigger_word": None, "work_dir": "/gone/scratch/zoe", "status": "training", "created_at": AT, "completed_at": None},
        ],
        "training_sessions": [
            {"id": 1, "character_id": 3, "user_id": 1, "steps": 1000, "batch_size": 2, "learning_rate": 0.0004, "train_dim": 512,
             "rank_dim": 16, "pulidflux_images": 1, "status": "completed", "progress": 100.0, "log_file": "logs/1.log",
             "started_at": AT, "completed_at": LATER, "created_at": AT},
            {"id": 2, "character_id": 4, "user_id": 2, "steps": 800, "batch_size": 1, "learning_rate": 8e-4, "train_dim": 512,
             "rank_dim": 8, "pulidflux_images": 0, "status": "running", "progress": 25.0, "log_file": None,
             "started_at": AT, "completed_at": None, "created_at": AT},
            {"id": 3, "character_id": 3, "user_id": 1, "steps": 10, "batch_size": 1, "learning_rate": 8e-4, "train_dim": 512,
             "rank_dim": 8, "pulidflux_images": 0, "status": "failed", "progress": 0.0, "log_file": None,
             "started_at": AT, "completed_at": LATER, "created_at": AT, "error_message": "CUDA out of memory"},
            {"id": 4, "character_id": 3, "user_id": 1, "steps": 10, "status": "cancelled", "created_at": AT},
            {"id": 5, "character_id": 3, "user_id": 1, "steps": 10, "status": "pending", "created_at": AT},
        ],
        "inference_jobs": [
            {"id": 1, "character_id": 3, "user_id": 1, "prompt": "mira7 at sea", "optimized_prompt": "mira7, sea, wide", "lora_weight": 0.8,
             "test_dim": 1024, "batch_size": 2, "num_inference_steps": 30, "do_optimize_prompt": 1, "fix_outfit": 0,
             "safety_check": 1, "face_enhance": 0, "status": "completed",
             "output_paths": f'["{root}/media/results/out1.png", "/gone/out2.png"]', "created_at": AT, "completed_at": LATER},
        ],
        "app_settings": [
            {"id": 1, "user_id": 1, "key": "HF_HOME", "value": "/data/hf", "is_encrypted": 0, "updated_at": AT},
        ],
    }  # fmt: skip


def _picture(path: Path, colour: str, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path)
