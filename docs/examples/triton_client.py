"""Asks Gemma 4 a question through Triton and prints the answer: triton_client.py HOST:PORT TOKENIZER_JSON.

It needs tritonclient[grpc] and tokenizers, and nothing of this project.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tokenizers import Tokenizer

address, tokenizer_file = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer_file)
prompt = "<bos><|turn>user\nWhat is the capital of France?<turn|>\n<|turn>model\n"
values = {
    "input_ids": np.array(tokenizer.encode(prompt, add_special_tokens=False).ids, np.int32),
    "request_output_len": np.array([64], np.int32),
    "stop_token_ids": np.array([tokenizer.token_to_id("<turn|>")], np.int32),
    "temperature": np.array([0.0], np.float32),
}
inputs = []
for name, array in values.items():
    datatype = "INT32" if array.dtype == np.int32 else "FP32"
    inputs.append(triton.InferInput(name, list(array.shape), datatype))
    inputs[-1].set_data_from_numpy(array)

responses = queue.Queue()
with triton.InferenceServerClient(address) as client:
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("gemma4", inputs)
    ids, finish_reason = [], None
    while finish_reason is None:
        result, error = responses.get(timeout=60)
        if error is not None:
            sys.exit(f"refused: {error}")
        ids += result.as_numpy("output_ids").tolist()
        finish_reason = result.as_numpy("finish_reason")
    client.stop_stream()
print(tokenizer.decode(ids))
print("finish_reason:", finish_reason[0].decode())
