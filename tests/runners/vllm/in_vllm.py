"""Asks the installed vLLM itself, in one process and without weights: run by the engine's own Python, JSON in and out.

Each case is {config, tensor_parallel_size, max_model_len, kv_cache_gib}; its answer {"refusal": text} or
{"kv_tokens": number}. The ranks of tensor parallelism are pretended, so that no process is started for them.
With {config, argv} only the command line, the configuration and the quantization are made: {"refusal": text} or {}.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from types import SimpleNamespace

GIB = 2**30


def main() -> None:
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    answers = [commanded(case) if "argv" in case else answer(case) for case in json.load(sys.stdin)]
    json.dump(answers, sys.stdout)


def answer(case):
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    size = case["tensor_parallel_size"]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(case["config"], file)
        arguments = EngineArgs(
            model=folder,
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=case["max_model_len"],
            tensor_parallel_size=size,
            distributed_executor_backend="mp",
            kv_cache_memory_bytes=int(case.get("kv_cache_gib", 1) * GIB),
        )
        try:
            config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
        except ValueError as refusal:
            return {"refusal": str(refusal)}
        pretend_ranks(size)
        # Only the groups are asked for sizes now, and the layers' caches are counted as for one rank of several.
        with set_current_vllm_config(config), torch.device("meta"):
            try:
                build(config)
            except (AssertionError, ValueError) as refusal:
                return {"refusal": str(refusal)}
            current_platform.update_block_size_for_backend(config)
            return {"kv_tokens": tokens(config)}


def commanded(case):
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.model_executor.model_loader.weight_utils import get_quant_config
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(case["config"], file)
        try:
            with contextlib.redirect_stderr(said):
                parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(case["argv"])
            parsed.model, parsed.skip_tokenizer_init = folder, True
            config = EngineArgs.from_cli_args(parsed).create_engine_config(UsageContext.OPENAI_API_SERVER)
            if config.model_config.quantization:
                get_quant_config(config.model_config, config.load_config)
        except SystemExit:
            return {"refusal": said.getvalue()}
        except (TypeError, ValueError) as refusal:
            return {"refusal": str(refusal)}
    return {}


def pretend_ranks(size):
    from vllm.distributed import parallel_state

    alone = SimpleNamespace(world_size=1, rank_in_group=0, rank=0, is_first_rank=True, is_last_rank=True)
    parallel_state._TP = SimpleNamespace(**{**vars(alone), "world_size": size})
    parallel_state._PP = parallel_state._DCP = parallel_state._PCP = alone


def build(config):
    from vllm.model_executor.model_loader.utils import get_model_architecture

    model, _ = get_model_architecture(config.model_config)
    return model(vllm_config=config)


def tokens(config):
    from vllm.config import get_layers_from_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs

    layers = get_layers_from_vllm_config(config, AttentionLayerBase)
    specs = {name: spec for name, layer in layers.items() if (spec := layer.get_kv_cache_spec(config)) is not None}
    layouts = [layout.name for layout in get_supported_kv_cache_layouts(get_current_attn_backends(config))]
    resolve_kv_cache_layout(config, [layouts], specs.values())
    (found,) = get_kv_cache_configs(config, [specs], [config.cache_config.kv_cache_memory_bytes])
    return get_kv_cache_capacity(config, found)[0]


if __name__ == "__main__":
    main()
