from vpxrc._native import Session as Session
from vpxrc._native import ac_quantizer as ac_quantizer
from vpxrc._native import num_running as num_running
from vpxrc._native import run_first_pass as run_first_pass
from vpxrc._native import run_plain_second_pass as run_plain_second_pass

LIBVPX_BUILD: str
