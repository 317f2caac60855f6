"""Peak training memory of a candidate, predicted without a GPU.

The segments of the network (blocks, norms, neck, heads) are traced one by one on meta tensors
(`tracer`), each distinct one once; a step of the whole is put together from their traces
(`training_step`, `step_simulator`), summed (`estimator`), and, for what is reserved, replayed in
the caching allocator (`allocator`).
"""

from nas.profiling.memory.prediction import Training, predict_memory, predict_reserved_bytes

__all__ = ["Training", "predict_memory", "predict_reserved_bytes"]
