"""Wrong overrides and wrong yaml: exit code 2 and one line that says what is wrong, never a traceback or a hang."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp import cli, config
from m3_exp.config import choices
from m3_exp.engines import gpus
from m3_exp.types import M3Error

# A request, and words that its one line must hold.
BAD = [
    # numbers
    ("seed=1e30", "seed"), ("seed=99999999999999999999999", "seed"), ("seed=-1", "at least 0"), ("seed=true", "seed"),
    ("seed=[1,2]", "seed"), ("seed={a:1}", "seed"), ("seed=", "seed"), ("seed=null", "seed"), ("seed=nan", "seed"),
    ("seed=0x10", "0x10"), ("seed=1_0.5", "seed"), ("limit=true", "limit"), ("limit=1e309", "limit"),
    ("limit=-5", "at least 1"), ("limit=[]", "limit"), ("limit=0.0", "limit"), ("limit=1e3", "limit"),
    ("engine.kv_cache_gib=1e309", "engine.kv_cache_gib=inf is not finite"), ("engine.kv_cache_gib=nan", "finite"),
    ("engine.kv_cache_gib=-1e309", "finite"), ("engine.gpu_memory_utilization=1e309", "finite"),
    ("engine.gpu_memory_utilization=0", "at least 0.05"), ("engine.gpu_memory_utilization=7", "at most 1"),
    ("engine.max_model_len=99999999999999999999", "too large"), ("engine.max_num_seqs=0", "at least 1"),
    ("engine.tensor_parallel_size=x", "whole number"), ("engine.threads=-1", "at least 1"),
    ("engine.start_timeout=inf", "finite"), ("workers=0", "at least 1"), ("workers=1e9", "workers"),
    ("workers=99999999999999999999", "workers"), ("repeat=-1", "repeat"), ("repeat=99999999999", "repeat"),
    ("ratio=fixed ratio.lam=nan", "ratio.lam"), ("ratio=fixed ratio.lam=null", "ratio.lam"),
    ("ratio=mixup ratio.alpha=1e309", "ratio.alpha"),
    ("ratio=mixup ratio.alpha=1e-320", "not a Beta parameter"), ("ratio=mixup ratio.draws=1000000000", "ratio.draws"),
    ("ratio=mixup ratio.draws=0", "ratio.draws"), ("ratio=grid ratio.nodes=1000000001", "ratio.nodes"),
    ("ratio=grid ratio.nodes=-3", "ratio.nodes"), ("ratio=grid ratio.sampled=-4", "ratio.sampled"),
    ("sparsify=dare sparsify.drop_rate=-0.1", "sparsify.drop_rate"), ("sparsify=dare sparsify.seed=-1", "at least 0"),
    ("sparsify=dare sparsify.draws=1000000000000", "sparsify.draws"),
    ("method=ties method.retain=nan", "method.retain"),
    ("method=ties method.retain=[1]", "method.retain"), ("method=ties method.scaling=1e309", "method.scaling"),
    ("family.parameters=x", "family.parameters"), ("family.parameters=1e400", "family.parameters"),
    ("family.cache_values=0", "family.cache_values"), ("evaluator.gsm8k.max_tokens=0", "max_tokens"),
    ("evaluator.gsm8k.max_tokens=99999999999999999999999999", "max_tokens"),
    # words
    ("check_lineage=no", "allowed: true, false"), ("check_lineage=0", "true, false"), ("verify=3", "true, false"),
    ("family.published=yes", "true, false"), ("chat_template=3", "true, false"),
    ("sandbox.allow_weak=3", "true, false"),
    ("sandbox=3", "sandbox"), ("sandbox={drivr:weak}", "sandbox.drivr"), ("family.experts={}", "sets nothing"),
    ("family.max_tokens={gsm9k:3}", "family.max_tokens.gsm9k"), ("family.experts.base=/x", "name of the base"),
    ("sandbox.driver=x", "landlock"), ("dtype=3", "bfloat16"), ("dtype=[a]", "bfloat16"),
    ("tokenizer=-1", "tokenizer"), ("tokenizer=[0]", "tokenizer"), ("checkpoint=3", "none, keep"),
    ("family.vocab=x", "mean, refuse"), ("evaluator.gsm8k.extractor=[1]", "extractor"),
    ("evaluator.gsm8k.extractor={a:1}", "extractor"), ("evaluator.gsm8k.extractor=null", "extractor"),
    ("evaluator.gsm8k.target=os:system", "os:system"), ("evaluator.gsm8k.target=null", "target"),
    ("method.target=os:system", "os:system"), ("method.target=x", "module:function"), ("method.target=null", "target"),
    ("tracker.mode=x", "auto, offline, online"), ("tracker.items=3", "tracker.items"),
    # choices
    ("engine=3", "recorded, transformers, vllm"), ("engine=null", "vllm"), ("engine=[vllm]", "vllm"),
    ("engine={a:b}", "vllm"), ("engine=", "vllm"), ("engine.name=os", "engine=NAME"), ("pair=3", "lm_math"),
    ("pair.name=x", "pair=NAME"), ("pair.experts=lm", "list"), ("pair.experts=null", "list"),
    ("pair.experts=[]", "list"),
    ("pair.experts=[lm,lm]", "twice"), ("pair.experts=[lm,3]", "'3'"), ("method=null", "average"),
    ("ratio.name=grid", "ratio=NAME"), ("tracker=null", "wandb"), ("launcher=k8s", "local"),
    ("method=../method/ties", "average"), ("tuned=nope", "tuned"),
    ("family=../../etc/passwd", "does not exist"), ("family=lab,llama2_13b", "-m"), ("evaluator=null", "gsm8k"),
    ("evaluator=[]", "at least one"), ("evaluator=3", "gsm8k"), ("evaluator={a:b}", "gsm8k"),
    ("evaluator=[3]", "gsm8k"),
    ("evaluator=[[gsm8k]]", "gsm8k"), ("evaluator.gsm8k=3", "evaluator.gsm8k.SETTING"), ("evaluator=gsm8k,mbpp", "-m"),
    ("sweeps=", "table1"), ("sweeps=[a]", "table1"), ("sweeps=../conf/config", "does not exist"),
    ("sweeps=table1,table2", "one sweep at a time"),
    # keys
    ("hydra.run.dir=", "hydra"), ("hydra.searchpath=", "--config-dir"), ("hydra=3", "hydra"),
    ("hydra.searchpath=[file:///tmp]", "--config-dir"), ("hydra/job_logging=none", "hydra"), ("+hydra.x=1", "hydra"),
    ("hydra/launcher=joblib", "workers=N"), ("+x=${oc.env:HOME}", "x is not known"), ("+x=1", "x is not known"),
    ("++x=1", "x is not known"), ("++seed=x", "seed=x"), ("+family=lab", "family"),
    ("+ratio.foo=3", "ratio.foo"), ("++ratio.foo=3", "ratio.foo"), ("~seed", "deleted"), ("~family", "deleted"),
    ("~nope", "deleted"), ("~seed=0", "deleted"), ("family@foo=lab", "packages"), ("=3", "KEY=VALUE"),
    ("x", "KEY=VALUE"),
    ("seed", "KEY=VALUE"), ("seed==3", "seed"), ("é=3", "KEY=VALUE"), (".=3", "KEY=VALUE"),
    ("family..base=3", "KEY=VALUE"),
    ("family.nope=3", "family.nope"), ("tracker.nope=3", "tracker.nope"), ("launcher.workers=3", "mean workers"),
    ("launcher.address=auto", "no effect here; did you mean launcher=ray?"),
    ("defaults=[]", "defaults"), ("_target_=os.system", "_target_"), ("engine.vllm=3", "engine.vllm"),
    ("engine.pace.swap=3", "did you mean engine=recorded?"),
    # interpolations
    ("seed=${seed}", "seed"), ("limit=${seed}${limit}", "limit"), ("dtype=${dtype}", "dtype"), ("seed=${nope}", "nope"),
    ("seed=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"), ("seed=${a:b}", "seed"), ("ratio=${ratio}", "ratio"),
    ("family.base=${family.base}", "family.base"), ("family.base=${family.experts}", "family"),
    # models and paths
    ("family.base=[1,2]", "quoted"), ("family.base=", "empty"), ("family.base=null", "family.base"),
    ("family=local family.base=/x family.experts=3", "[A,B]"),
    ("family=local family.base=/x family.experts=[]", "[A,B]"),
    ("family=local family.base=/x family.experts=[1,2]", "quoted"),
    ("family=local family.base=/x family.experts={a:{b:c}}", "family.experts"),
    ("family=local family.base=/tmp family.experts=[null,null]", "family.experts"),
    ("items=/no/such/file", "is not a file"), ("items=/etc", "is not a file"), ("items=[a]", "quoted"),
    ("items=", "empty"), (f"items={'a' * 300}", "is not a file"), (f"items=/tmp/{'a' * 5000}", "is not a file"),
    (f"store={'a' * 300}", "too long"), (f"out=/{'a/' * 3000}", "too long"), ("out=[a]", "quoted"), ("out=", "empty"),
    ("out=/dev/null/x", "lies below /dev/null"), ("store=/dev/null/x/y", "lies below /dev/null"), ("store=", "empty"),
    ("store={a:b}", "quoted"), ("tracker.dir=[a]", "quoted"), ("out=a\0b", "control character"),
    ("out=a\x1b[31mb", "out"),
    ("out=\udce9", "UTF-8"), ("out='\udce9'", "UTF-8"),
    # size
    (f"seed={'9' * 5000}", "too long"), (f"limit={'[' * 3000}", "brackets"), (f"limit={'{a:' * 500}", "brackets"),
    (f"{'a' * 200_000}=3", "longer"), (f"seed={'a' * 300_000}", "longer"),
    # sweeps
    ("-m seed=range(1,1000000000)", "10000"), ("-m seed=range(1,1000000000000000000)", "10000"),
    ("-m seed=range(0,1,0)", "range"), ("-m seed=range(0,10,-1)", "range"), ("-m seed=range(1.5,inf)", "range"),
    ("-m ratio=glob(*)", "name the values"), ("-m ratio.alpha=interval(0,1)", "name the values"),
    ("-m seed=shuffle(range(1,1000000000))", "10000"), ("-m seed=choice()", "choice"), ("-m seed=1,x", "seed=x"),
    ("-m seed=range(1,200) limit=range(1,200)", "product"), ("-m family=lab,nope", "family=nope"),
    ("seed=int(x)", "seed"), ("seed=nofunc(1)", "nofunc"), ("seed=choice(1,2)", "-m"),
]  # fmt: skip


def _one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    start = time.monotonic()
    assert cli.main(args) == 2
    assert time.monotonic() - start < 30
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.split("\n")[:-1]
    assert line.startswith("m3: ")
    assert line.isprintable()
    assert len(line) < 2000
    return line


def test_the_table_is_long() -> None:
    assert len(BAD) >= 150
    assert len({request for request, _ in BAD}) == len(BAD)


@pytest.mark.parametrize(("line", "says"), BAD, ids=[ascii(line)[1:60] for line, _ in BAD])
def test_a_wrong_override_is_one_line(line: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = [] if "store=" in line else [f"store={tmp_path}"]
    assert says in _one_line(["plan", *line.split(" "), *store], capsys)


YAML = [
    ("base: [", "broken.yaml:1"), ("a: b: c", "broken.yaml:1"), ("\tname: x", "broken.yaml:1"),
    ("a: *b", "broken.yaml"),
    ("&a [*a]", "broken.yaml"), ("a: 1\na: 2\n", "broken.yaml"), ("name: \x01", "broken.yaml"),
    ("[" * 700 + "]" * 700, "nested"), ("x: &a [1, 2]\n" * 2, "broken.yaml"),
    ("!!python/object:os.system {}", "broken"),
    ("\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '1'] * 9)}]" for i in range(12)), "values"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), YAML, ids=range(len(YAML)))
@pytest.mark.parametrize("group", ["family", "sweeps"])
def test_broken_yaml_is_one_line_that_names_the_file(
    text: str, says: str, group: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "broken.yaml").write_text(text)
    asked = "family=broken" if group == "family" else "sweeps=broken"
    assert says in _one_line(["plan", "--config-dir", str(tmp_path), asked], capsys)


def test_yaml_that_is_not_text_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    line = _one_line(["plan", "--config-dir", str(tmp_path), "family=latin"], capsys)
    assert "latin.yaml:1 is not UTF-8" in line


SWEEPS = [
    ("", "no list `plans:`"), ("3", "mine.yaml"), ("plans: []", "no list `plans:`"),
    ("plans: {a: b}", "no list"),
    ("plans: [a]", "plan 1"), ("plans: [{}]", "plan 1"), ("plans: [{pair: {a: b}}]", "plan 1"),
    ("plans: [{1: 2}]", "plan 1"), ("table: [a]\nplans: [{pair: lm}]", "table"), ("plans: [{nope: 3}]", "nope"),
    ("plans: [{pair: nope}]", "pair=nope"), ("plans: [{'': 3}]", "KEY=VALUE"), ("plans: [{hydra.run.dir: x}]", "hydra"),
    ("plans: [{seed: 'range(1,1000000000)'}]", "10000"), ("plans: [{seed: null}]", "seed"),
    ("plans: [{~seed: 3}]", "deleted"), ("plans: [{seed: '${oc.env:NO_SUCH_VARIABLE}'}]", "NO_SUCH_VARIABLE"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), SWEEPS, ids=range(len(SWEEPS)))
def test_a_wrong_sweep_is_one_line(text: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(text)
    assert says in _one_line(["plan", "--config-dir", str(tmp_path), "sweeps=mine"], capsys)


CHOICES = [
    ("family", "", "family"), ("family", "3", "mine"), ("family", "[a]", "mine"), ("family", "name: mine", "missing"),
    ("family", "{LAB}\nchat_templat: true", "family.chat_templat is not known"),
    ("ratio", "name: mine", "ratio.target is missing"), ("engine", "name: os", "missing"),
    ("pair", "name: mine", "pair"), ("method", "name: mine\ntarget: os:system", "os:system"),
    ("engine", "{VLLM}", "engine.name=os is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("group", "text", "says"), CHOICES, ids=range(len(CHOICES)))
def test_a_choice_that_lacks_or_adds_a_key_is_one_line(
    group: str, text: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lab = (config.ROOT / "conf/family/lab.yaml").read_text()
    vllm = (config.ROOT / "conf/engine/vllm.yaml").read_text().replace("name: vllm", "name: os")
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text.replace("{LAB}", lab).replace("{VLLM}", vllm))
    assert says in _one_line(["plan", "--config-dir", str(tmp_path), f"{group}=mine"], capsys)


@pytest.mark.parametrize("folder", ["/no/such", "/etc/passwd", "a\0b", "\udce9", "a" * 300, ""])
def test_a_config_dir_that_is_none_is_one_line(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    _one_line(["plan", "--config-dir", folder], capsys)


OTHERS = [
    (["score", "gsm8k", "/no", "extractor=strict,paper"], "one value"),
    (["score", "gsm9k", "/no"], "did you mean gsm8k?"),
    (["table", "tabel1"], "did you mean table1?"), (["figure", "figre4"], "did you mean figure4?"),
    (["score", "gsm8k", "/no", "+foo=1"], "not a setting"), (["score", "gsm8k", "/no", "sandbox.driver=x"], "landlock"),
    (["score", "gsm8k", "/dev/null", "items="], "items is empty"), (["score", "gsm8k", "/tmp", "items=lab"], "/tmp"),
    (["score", "gsm8k", "/no", "extractor=["], "extractor"), (["score", "gsm8k", "/no", "="], "SETTING=VALUE"),
    (["score", "gsm8k", "/no", "target=os:system"], "os:system"), (["score", "gsm8k", "a\0b"], "NUL"),
    (["score", "gsm8k", "\udce9"], "UTF-8"), (["score", "gsm8k", "~no-such-user/x"], "home"), (["score"], "m3 score"),
    (["report", "sweeps="], "table1"), (["report", "sweeps=table1,"], "table1"),
    (["table", "table1", "--draw", "x"], "--draw"), (["table", "table1", "--format", "x"], "--format"),
    (["response", "--repeats", "-1"], "--repeats"), (["response", "--repeats", "x"], "--repeats"),
    (["figure", "figure1a", "--out", "/tmp/x.exe"], "--out"), (["run", "--cfg", "x"], "--cfg"),
    (["plan", "--json=3"], "--json"), (["merge", "out=/dev/null/x"], "/dev/null"), (["\x1b[31mrun"], r"\x1b[31mrun"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "says"), OTHERS, ids=range(len(OTHERS)))
def test_a_wrong_command_is_one_line(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in _one_line(args, capsys)


def test_what_is_meant_still_composes() -> None:
    assert config.request(["++limit=3", "+seed=3"]).configs[0].limit == 3
    last = config.request(["seed=1", "limit=3", "seed=2"])
    assert (last.configs[0].seed, last.notes) == (2, ("seed=1 does not count: seed=2 comes after it",))
    seeds = config.request(["seed=range(1,4)", "evaluator=[gsm8k]"], multirun=True).configs
    assert [found.seed for found in seeds] == [1, 2, 3]
    assert config.request(["seed=${oc.decode:'7'}"]).configs[0].seed == 7
    assert config.request([f"seed={2**63 - 1}"]).configs[0].seed == 2**63 - 1


def test_a_gpu_takes_only_what_a_card_can_be() -> None:
    load = gpus.Load(weights=10**9, width=2, cache=0, length=512, split=1, share=0.9)
    assert gpus.sequences(gpus.GPUS[0], load, 512) == 0
    with pytest.raises(M3Error, match="finite"):
        config.request(["engine.gpu_memory_utilization=1e309"])


# A request, and what it says was meant.
MEANT = [
    ("alpha=0.5", "did you mean ratio.alpha (with ratio=mixup)?"), ("lam=0.3", "ratio.lam (with ratio=fixed)?"),
    ("ratio=mixup alpha=0.5", "ratio.alpha"), ("ratio.alfa=3", "ratio.alpha"), ("+ratio.alfa=3", "ratio.alpha"),
    ("drop_rate=0.2", "sparsify.drop_rate (with sparsify=dare)?"), ("density=0.5", "method.retain"),
    ("extractor=strict", "evaluator.BENCHMARK.extractor?"), ("evalutor=[gsm8k]", "evaluator?"), ("limt=3", "limit?"),
    ("evaluator.gsm8k.extracter=strict", "evaluator.gsm8k.extractor?"), ("evaluator.gsm8.skill=lm", "evaluator.gsm8k"),
    ("method=linear", "method=average or method=task_arithmetic?"), ("method=tise", "method=ties?"),
    ("method=dare_ties", "method=ties sparsify=dare?"), ("method=dare", "sparsify=dare?"),
    ("method=mixup", "ratio=mixup?"), ("-m method=linear,ties", "method=average or method=task_arithmetic?"),
    ("family=qwen", "family=qwen2_5_1_5b?"), ("evaluator=[gsm8k,human_eval]", "evaluator=humaneval?"),
    ("pair=lm_meth", "pair=lm_math?"), ("sweeps=tabel1", "sweeps=table1?"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "says"), MEANT, ids=[line for line, _ in MEANT])
def test_a_misspelt_word_is_named(line: str, says: str) -> None:
    words = line.split()
    with pytest.raises(M3Error, match=re.escape(f"did you mean {says.removeprefix('did you mean ')}"[:-1])):
        config.request([word for word in words if word != "-m"], multirun="-m" in words)


COMMANDS = (
    "run",
    "merge out=x",
    "table demo",
    "response",
    "report",
    "status",
    "figure figure1a",
    "doctor",
    "wandb sync",
)


@pytest.mark.parametrize("override", ["sweeps=demo sweeps=table1", "~tracker", "evaluator=[]", "pair=nope", "+foo=1"])
def test_every_command_refuses_the_same(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = _one_line(["plan", *override.split()], capsys)
    for command in COMMANDS:
        assert _one_line([*command.split(), *override.split()], capsys) == said, command


@pytest.mark.parametrize("command", ["plan --list", "table --list", "figure --list", "score gsm8k /dev/null"])
def test_a_config_dir_that_is_none_is_refused_by_what_reads_none(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "/no/such is not a directory" in _one_line([*command.split(), "--config-dir=/no/such"], capsys)


def test_a_setting_that_no_yaml_holds_is_read() -> None:
    one = config.request(["evaluator=[gsm8k]", "evaluator.gsm8k.skill=code", "evaluator.gsm8k.items=official"])
    assert (one.configs[0].evaluators[0].skill, one.configs[0].evaluators[0].items) == ("code", "official")
    other = config.request(["family=qwen2_5_1_5b", "evaluator=[gsm8k]", "family.max_tokens.gsm8k=12"])
    assert other.configs[0].evaluators[0].settings["max_tokens"] == 12


DOCUMENTS = [config.ROOT / "README.md", *sorted((config.ROOT / "docs").rglob("*.md"))]
_ELSEWHERE = ("performance.md", "plugins.md")  # it times refusals; its choices are own ones (tests/test_plugins.py)


def _documented() -> set[tuple[str, str]]:
    """Return every KEY=VALUE of the documents, but for placeholders (`limit=N`, `family.base=DIR`) and Python."""
    roots = "|".join([*choices.groups(), "evaluator", *choices.top_keys()])
    override = re.compile(rf"(?<![\w.-])((?:{roots})(?:\.[a-z_0-9.]+)?)=(\[[^\]]*\]|[^\s`,;|)'\"?]+)")
    texts = [re.sub("```python.*?```", "", page.read_text(), flags=re.DOTALL) for page in DOCUMENTS
             if page.name not in _ELSEWHERE]  # fmt: skip
    found = {(m[1], m[2].rstrip(".:")) for text in texts for m in override.finditer(text)}
    return {(key, value) for key, value in found if re.fullmatch(r"[a-z0-9_.\[\],-]+", value) and "..." not in value}


def _settings_of_benchmarks() -> Iterator[tuple[str, str]]:
    """Give every KEY=VALUE of the table of benchmarks: `extractor=paper`, `strict` are two values of one key."""
    table = (config.ROOT / "docs" / "benchmarks.md").read_text()
    for name, settings in re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", table, re.MULTILINE):
        key = ""
        for word in re.findall(r"`([^`]+)`", settings) if name in config.names("evaluator") else ():
            key, value = word.split("=") if "=" in word else (key, word)
            if value and word not in ("rules", "masked_lm", "sentence_encoder"):  # the lab's judge; keys alone
                yield f"evaluator.{name}.{key}", value


REHEARSAL = ["engine=recorded", "engine.answers=generated", "engine.pace.tokens_per_second=2213"]
# What a documented override cannot do without.
WITH = {
    "family=local": ["family.base=/", "family.experts=[/]"],
    "evaluator.alpaca_eval.judge=local": ["evaluator.alpaca_eval.judge_model=x"],
    "evaluator.alpaca_eval.judge=precomputed": ["evaluator.alpaca_eval.annotations=x"],
}


def _launcher_with(parameter: str) -> str:
    """Name a launcher that has a parameter."""
    files = (file for file in sorted((config.ROOT / "conf" / "launcher").glob("[a-z]*.yaml")))
    return next((file.stem for file in files if f"\n{parameter}: " in file.read_text()), "local")


def test_what_the_documents_write_is_taken() -> None:
    own = {
        ("family", "mine"),
        *(("pair", name) for name in ("law", "law_poet", "law_poet_chat")),
    }  # of one's own models
    written = sorted({*_documented(), *_settings_of_benchmarks()} - own)
    assert len(written) > 100
    refused = []
    for key, value in written:
        group, _, rest = key.partition(".")
        users = [name for name in config.names(group) if rest in choices.keywords_of(group, name)]
        setup = [f"evaluator=[{rest.partition('.')[0]}]"] if group == "evaluator" and rest else []
        setup += [f"{group}={users[0]}"] if users else []
        setup += [f"launcher={_launcher_with(rest)}"] if group == "launcher" and rest else []
        setup += WITH.get(f"{key}={value}", [])
        setup += REHEARSAL if key.startswith("engine.pace.") else []
        if key == "items" and value not in ("lab", "official", "dev"):
            continue
        try:
            config.request([*setup, f"{key}={value}"])
        except M3Error as error:
            refused.append(f"{key}={value}: {error}")
    assert refused == [], "\n".join(refused)
