"""transformers' text-to-speech pipeline speaks through audiodiff: `pipeline(..., vocoder=...)`.

python examples/transformers_pipeline.py SPEECHT5_NAME_OR_FOLDER [VOCODER_FOLDER]

The pipeline needs a tokenizer, so a SpeechT5 with one has to be named: microsoft/speecht5_tts, or a folder.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, SpeechT5ForTextToSpeech, TextToAudioPipeline

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, Face, TransformersVocoder


def make_pipeline(
    model: SpeechT5ForTextToSpeech, tokenizer: PreTrainedTokenizerBase, vocoder: Face
) -> TextToAudioPipeline:
    """Returns the pipeline, as `pipeline("text-to-speech", ...)` builds it."""
    adapter = TransformersVocoder(vocoder, Contract("speecht5_16k80"))
    return TextToAudioPipeline(model=model, tokenizer=tokenizer, vocoder=adapter)


def speak(pipe: TextToAudioPipeline, text: str, speaker: Tensor) -> tuple[Tensor, int]:
    """Returns the waveform [T] of a text in the voice of a speaker embedding [1, D], and its sample rate."""
    made = pipe(text, forward_params={"speaker_embeddings": speaker})
    return torch.as_tensor(made["audio"]).reshape(-1), made["sampling_rate"]


def main(arguments: list[str]) -> None:
    """Writes pipeline.wav."""
    if not arguments:
        sys.exit("name a SpeechT5: microsoft/speecht5_tts or a folder")
    name, *rest = arguments
    vocoder = audiodiff.Vocoder.load(rest[0]) if rest else audiodiff.GriffinLim(preset("speecht5_16k80"))
    model = SpeechT5ForTextToSpeech.from_pretrained(name)
    pipe = make_pipeline(model, AutoTokenizer.from_pretrained(name), vocoder)
    waveform, sample_rate = speak(pipe, "Hello.", torch.zeros(1, model.config.speaker_embedding_dim))
    io.write("pipeline.wav", waveform[None].clamp(-1, 1), sample_rate)
    print(f"pipeline.wav: {waveform.shape[0] / sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
