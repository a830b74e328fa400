"""The shape of the Python worker: FastAPI, a model for the body, the function in-process."""

import os
import sys

from fastapi import FastAPI
from pydantic import BaseModel

sys.path.insert(0, os.environ["BENCH_FUNCTIONS"])
import handler


class Request(BaseModel):
    payload: str


app = FastAPI()


# async: a plain function would be sent through a pool of threads, which is slower.
@app.post("/")
async def invoke(request: Request):
    return {"result": handler.decode_type_a(request.payload)}
