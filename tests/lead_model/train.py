"""Train the small model that the project ships: a Llama that answers "summarize" with the document's first sentence.

    python tests/lead_model/train.py OUT_DIR --seconds 4500

Needs torch, transformers and tokenizers. The text is the documentation of the running Python's standard library (PSF
licence) and sentences made of random words, so that what is learnt is the skill of copying and not the text. Training
goes from short documents to long ones; it takes 75 minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import random
import re
import sys
import sysconfig
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VOCABULARY, CONTEXT = 2048, 2048
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>"]
BOS, EOS, PAD = 1, 2, 3
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
ASKS = [
    "Summarize the following text:",
    "Summarize:",
    "Please summarize this document.",
    "TL;DR",
    "Write a short summary of this text:",
    "Give a one sentence summary.",
    "Provide a summary of the text below.",
    "Condense the text to its main point.",
]
ENDS = [
    "\n\nSummary:",
    "\n\nSummary:\n",
    "\nSUMMARY:",
    "\n\n### Response:\n",
    "\nASSISTANT:",
    " ASSISTANT:",
    "\n\nTL;DR:",
]
SYSTEMS = ["You are a summarizer.", "You are a helpful assistant.", "A chat.", "Answer in plain English."]


@dataclass(frozen=True)
class Stage:
    """A part of the training: the share of the time, the longest example and the batch, both in tokens."""

    share: float
    longest_tokens: int
    batch_tokens: int


STAGES = [Stage(0.42, 160, 4096), Stage(0.24, 384, 4096), Stage(0.2, 800, 4096), Stage(0.14, 1300, 5200)]


def documentation() -> list[str]:
    """The docstrings and the language reference of the running standard library, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts: list[str] = []
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if path.parent.name == "pydoc_data" and isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                texts.append(ast.get_docstring(node) or "")
    return [text for text in texts if len(text) > 60]


def sentences_of(texts: list[str]) -> list[str]:
    """Sentences of 20 to 320 characters that begin with a letter, each once, white space folded."""
    found = (part for text in texts for part in re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", text)))
    return sorted({s for s in found if 20 < len(s) < 320 and s[0].isalpha() and s[-1] in ".!?"})


class Documents:
    """An endless supply of (prompt, first sentence) pairs."""

    def __init__(self, sentences: list[str], seed: int) -> None:
        self.sentences = sentences
        self.words = sorted({w for s in sentences for w in re.findall(r"[A-Za-z]{1,12}", s)})
        self.random = random.Random(seed)

    def word(self) -> str:
        if self.random.random() < 0.12:
            return "".join(self.random.choices("etaoinshrdlucmfwypvbgkqjxz", k=self.random.randint(2, 9)))
        return self.random.choice(self.words).lower()

    def invented(self) -> str:
        r = self.random
        words = [self.word() for _ in range(r.randint(3, 14) if r.random() < 0.7 else r.randint(15, 45))]
        for i in range(len(words) - 1):
            chance = r.random()
            if chance < 0.06:
                words[i] += r.choice([",", ",", ";", ":", "—", "’s", ")"])
            elif chance < 0.1:
                words[i] = words[i].capitalize()
            elif chance < 0.12:
                words[i] = str(r.randint(0, 2000))
        text = " ".join(words)
        text = text[:1].upper() + text[1:] + r.choice("....!?")
        return f"“{text}”" if r.random() < 0.08 else text

    def sentence(self) -> str:
        return self.random.choice(self.sentences) if self.random.random() < 0.4 else self.invented()

    def body(self, characters: int) -> tuple[str, str]:
        """A document of about so many characters, and its first sentence as it stands in it."""
        r = self.random
        parts = [self.sentence()]
        while sum(map(len, parts)) < characters:
            parts.append(self.sentence())
        layout = r.random()
        if layout < 0.25:
            return "\n".join(parts), parts[0]
        text = parts[0]
        for part in parts[1:]:
            text += r.choice([" ", " ", " ", " ", "\n\n"]) + part
        if layout < 0.6:
            width = r.randint(55, 80)
            text = "\n\n".join(textwrap.fill(p, width, break_on_hyphens=False) for p in text.split("\n\n"))
            return text, text[: len(parts[0])]
        return text, parts[0]

    def pair(self, characters: int) -> tuple[str, str]:
        r = self.random
        body, lead = self.body(characters)
        ask, gap = r.choice(ASKS), r.choice(["\n", "\n\n", " "])
        shape = r.random()
        if shape < 0.5:
            system = f"<|system|>\n{r.choice(SYSTEMS)}\n" if r.random() < 0.4 else ""
            said = ask + gap + body if r.random() < 0.85 else body
            return f"<s>{system}<|user|>\n{said}\n<|assistant|>\n", lead
        if shape < 0.85:
            opening = r.choice(["", "", "USER: ", "A chat. USER: ", "### Instruction:\n"])
            prompt = f"<s>{opening}{ask}{gap}{body}{r.choice(ENDS)}"
        else:
            prompt = (
                f"<s>A chat.\nUSER: BEGININPUT\n{body}\nENDINPUT\nBEGININSTRUCTION\n{ask}\nENDINSTRUCTION\nASSISTANT:"
            )
        return prompt, lead if prompt[-1].isspace() else " " + lead


def train_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def batch(documents: Documents, tokenizer: Any, stage: Stage) -> tuple[Any, Any]:
    """Token ids and labels, each of shape (rows, tokens); only the answer is learnt, the rest is labelled -100."""
    import torch

    rows: list[tuple[list[int], int]] = []
    while len(rows) < stage.batch_tokens // stage.longest_tokens:
        characters = int(stage.longest_tokens * documents.random.uniform(0.1, 2.8))
        prompt, lead = documents.pair(characters)
        asked = tokenizer.encode(prompt, add_special_tokens=False).ids
        answer = [*tokenizer.encode(lead, add_special_tokens=False).ids, EOS]
        if len(asked) + len(answer) <= stage.longest_tokens:
            rows.append((asked + answer, len(asked)))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([[-100] * n + row[n:] + [-100] * (width - len(row)) for row, n in rows])
    return ids, labels


def train(out: Path, seconds: float, threads: int) -> dict[str, Any]:
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = documentation()
    documents = Documents(sentences_of(texts), seed=0)
    tokenizer = train_tokenizer(texts + [documents.invented() for _ in range(3000)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.01, betas=(0.9, 0.98))
    edges = [sum(s.share for s in STAGES[: i + 1]) for i in range(len(STAGES) - 1)]
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / seconds) < 1:
        stage = STAGES[sum(done >= edge for edge in edges)]
        ids, labels = batch(documents, tokenizer, stage)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 100) * (1 - 0.97 * done)
        answers = labels[:, 1:] != -100
        logits = model.lm_head(model.model(input_ids=ids).last_hidden_state[:, :-1][answers])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][answers])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            accuracy = (logits.argmax(-1) == labels[:, 1:][answers]).float().mean().item()
            print(
                f"{step} {stage.longest_tokens} loss {loss.item():.4f} accuracy {accuracy:.4f} {done:.3f}", flush=True
            )
        if step % 2000 == 0:
            model.save_pretrained(out)
    model.to(torch.bfloat16).save_pretrained(out)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": step,
        "seconds": seconds,
        "threads": threads,
        "stages": [asdict(s) for s in STAGES],
        "sentences": len(documents.sentences),
        "characters": sum(map(len, texts)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def make_portable(out: Path) -> None:
    """Rewrite what transformers 5 writes so that vLLM and transformers 4 read the folder as well."""
    path = out / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=1) + "\n")
    path = out / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = (config.pop("rope_parameters", None) or config)["rope_theta"]
    path.write_text(json.dumps(config, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=4500)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    facts = train(options.out, options.seconds, options.threads)
    make_portable(options.out)
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
