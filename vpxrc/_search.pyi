import numpy as np
from numpy.typing import NDArray

class Network:
    def __init__(
        self,
        parameters: dict[str, NDArray[np.float32]],
        *,
        limit: float,
        epsilon: float,
        reward: int,
    ) -> None: ...
    def represent(self, observations: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def predict(
        self, states: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
    def step(
        self, actions: NDArray[np.int32], states: NDArray[np.float32]
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32],
    ]: ...

class SearchTree:
    def __init__(
        self,
        prior_logits: NDArray[np.float32],
        value: NDArray[np.float32],
        embedding: NDArray[np.float32],
        gumbel: NDArray[np.float32],
        invalid_actions: NDArray[np.bool_] | None,
        *,
        num_simulations: int,
        max_depth: int | None,
        max_considered: int,
        value_scale: float,
        maxvisit_init: float,
        rescale: bool,
        mixed_value: bool,
    ) -> None: ...
    def select(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...
    def expand(
        self,
        reward: NDArray[np.float32],
        discount: NDArray[np.float32],
        prior_logits: NDArray[np.float32],
        value: NDArray[np.float32],
        embedding: NDArray[np.float32],
    ) -> None: ...
    def search(self, network: Network) -> None: ...
    def result(
        self,
    ) -> tuple[
        NDArray[np.int32],
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.int32],
        NDArray[np.float32],
    ]: ...
