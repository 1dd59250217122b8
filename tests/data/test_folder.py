"""`prepare folder`: classes from folders, splits by rule or by folders, nothing passed over in silence."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from audiodiff.data.corpora import folder
from audiodiff.data.entries import Summary
from audiodiff.data.labels import check_labels
from audiodiff.data.manifests import SPLITS, label_of, labels_of, load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.errors import InputError
from tests.data import made_up


def prepare(source: Path, out: Path, **options) -> tuple[dict, dict[str, dict]]:
    report = folder.prepare(source, out, PrepareOptions(**options))
    present = [split for split in SPLITS if report["splits"][split]["cuts"]]
    return report, {split: {cut.id: cut for cut in load_cuts(out / f"{split}.jsonl.gz")} for split in present}


def test_gtzan_like_trees_have_their_folders_as_classes_in_every_split(tmp_path):
    report, cuts = prepare(made_up.folder(tmp_path / "in", count=21), tmp_path / "out")
    for split, count in (("train", 17), ("dev", 2), ("test", 2)):
        assert Counter(label_of(cut, "class") for cut in cuts[split].values()) == {
            "hip hop": count,
            "blues": count,
        }
    assert all(" " not in name for part in cuts.values() for name in part)
    assert "within each class" in report["split_rule"]


def test_the_recipe_is_told_rate_channels_and_classes(tmp_path):
    source = made_up.folder(tmp_path / "in")
    made_up.sound(source / "genres" / "rock 'n' roll, [live]" / "a.wav", 22050)
    prepare(source, tmp_path / "out")
    lines = (tmp_path / "out" / "recipe.txt").read_text().splitlines()
    parsed = {found.key_or_group: found.value() for found in OverridesParser.create().parse_overrides(lines)}
    assert parsed["data.sample_rate"] == 22050
    assert parsed["data.channels"] == 1
    classes = [getattr(value, "text", value) for value in parsed["data.labels.class"]]
    assert classes == ["blues", "hip hop", "rock 'n' roll, [live]"]


def test_folders_named_after_splits_are_the_split(tmp_path):
    source = made_up.folder(tmp_path / "in" / "train", count=21)
    made_up.folder(tmp_path / "in" / "test", count=1)
    shutil.copytree(tmp_path / "in" / "test", tmp_path / "in" / "other")
    report, cuts = prepare(tmp_path / "in", tmp_path / "out")
    assert {split: len(part) for split, part in cuts.items()} == {"train": 38, "dev": 4, "test": 2}
    assert "the folders test, train; dev is the twentieth of train" in report["split_rule"]
    assert report["excluded"] == 2  # those of "other"
    made_up.folder(tmp_path / "in" / "valid", count=2)
    _, cuts = prepare(tmp_path / "in", tmp_path / "out")
    assert {split: len(part) for split, part in cuts.items()} == {"train": 42, "dev": 4, "test": 2}
    assert source.name == "train"


def test_without_labels_a_flat_folder_is_taken_whole(tmp_path):
    for number in range(4):
        made_up.sound(tmp_path / "in" / f"{number}.wav", 22050, seed=number)
    made_up.text(tmp_path / "in" / "0.txt", "what is\nsaid")
    report, cuts = prepare(tmp_path / "in", tmp_path / "out")
    assert report["cuts"] == 4
    every = {name: cut for part in cuts.values() for name, cut in part.items()}
    assert labels_of(every["0"]) == {"text": "what is said"}
    assert (tmp_path / "out" / "recipe.txt").read_text() == "data.sample_rate=22050\ndata.channels=1\n"
    made_up.folder(tmp_path / "in")
    report, _ = prepare(tmp_path / "in", tmp_path / "out")
    assert [problem["reason"][:35] for problem in report["problems"]] == [
        "lies in no folder that could be its"
    ] * 4
    report, _ = prepare(tmp_path / "in", tmp_path / "out", label_from="none")
    assert (report["cuts"], report["problems"]) == (10, [])
    assert not report["splits"]["train"]["labels"]


def test_what_cannot_be_decoded_is_named_and_hidden_files_are_not_there(tmp_path):
    source = made_up.folder(tmp_path / "in")
    made_up.text(source / "genres" / "blues" / "a.m4a", "AAC")
    made_up.text(source / "genres" / "blues" / "._b.wav", "a resource fork")
    made_up.text(source / "genres" / "blues" / "c.wav", "no audio")
    made_up.text(source / "genres" / "blues" / "cover.jpg", "a picture")
    report, _ = prepare(source, tmp_path / "out")
    reasons = {problem["id"]: problem["reason"] for problem in report["problems"]}
    assert "ffmpeg" in reasons["a.m4a"]
    assert "not an audio file" in reasons["genres-blues-c"]
    assert len(reasons) == 2


def test_two_paths_that_would_share_an_id_both_stay_and_two_suffixes_of_one_do_not(tmp_path):
    made_up.sound(tmp_path / "in" / "a-b" / "c.wav", 22050, seed=1)
    made_up.sound(tmp_path / "in" / "a" / "b-c.wav", 22050, seed=2)
    made_up.sound(tmp_path / "in" / "a" / "d.wav", 22050, seed=3)
    made_up.compressed(tmp_path / "in" / "a" / "d.mp3", 22050, seed=3)
    report, cuts = prepare(tmp_path / "in", tmp_path / "out")
    assert report["cuts"] == 3
    assert [problem["reason"] for problem in report["problems"]] == ["duplicate id, d.mp3 is kept"]
    assert len({name for part in cuts.values() for name in part}) == 3


def test_the_prepared_folder_may_lie_inside(tmp_path):
    source = made_up.folder(tmp_path / "in")
    made_up.compressed(source / "genres" / "blues" / "d.mp3", 22050)
    first, _ = prepare(source, source / "out")
    again, _ = prepare(source, source / "out")
    assert first == again
    assert first["cuts"] == 7


def test_no_audio_at_all_and_an_unknown_label_rule_are_refused(tmp_path):
    made_up.text(tmp_path / "in" / "a.m4a", "AAC")
    with pytest.raises(InputError, match=r"holds no audio file of .*1 of another kind: .*a\.m4a.*--source"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="--label-from name: expected one of parent, none"):
        prepare(tmp_path / "in", tmp_path / "out", label_from="name")


def test_a_recipe_that_lacks_a_class_is_told_what_to_say(tmp_path):
    prepare(made_up.folder(tmp_path / "in"), tmp_path / "out")
    cuts = load_cuts(tmp_path / "out" / "train.jsonl.gz")
    summary: Summary = cuts.summary
    check_labels(summary, {"class": ["hip hop", "blues", "jazz"]})
    with pytest.raises(InputError, match=r"lists nothing, .* pass data\.labels\.class=\['blues','hip hop'\]"):
        check_labels(summary, {"class": []})
    with pytest.raises(InputError, match=r"lists blues, the manifests also hold hip hop"):
        check_labels(summary, {"class": ["blues"]})


def test_real_drum_samples_are_prepared_by_their_folders(data_dir, tmp_path):
    report, _ = prepare(data_dir / "drums_osdk", tmp_path)
    found = Counter(path.parent.name for path in (data_dir / "drums_osdk").rglob("*.flac"))
    counted: Counter[str] = Counter()
    for split in SPLITS:
        counted.update(report["splits"][split]["labels"]["class"])
    assert counted + Counter({name: 0 for name in found}) == found
    assert report["excluded"] == 0


def test_real_music_in_vorbis_is_transcoded_whole(data_dir, tmp_path):
    from audiodiff.audio import io

    name = "sorohanro_-_solo-trumpet-06.hq.ogg"
    (tmp_path / "in").mkdir()
    shutil.copy(data_dir / "music" / name, tmp_path / "in" / name)
    report, cuts = prepare(tmp_path / "in", tmp_path / "out")
    assert report["transcoded"] == {"Vorbis": 1}
    (cut,) = cuts["train"].values()
    full, rate = io.read(tmp_path / "in" / name)
    assert (cut.num_samples, cut.num_channels, cut.sampling_rate) == (full.shape[1], full.shape[0], rate)
