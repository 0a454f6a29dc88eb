"""The pytest plugin, in a pytest of its own."""

from importlib.metadata import entry_points

import pytest

pytest_plugins = "pytester"

TEST = """
import pytest
from jobtape import job

@job("hello")
async def hello(name: str) -> str:
    return f"Hello, {name}"

@pytest.mark.jobtape(hello, max_result=100)
def test_hello(jobtape):
    job = hello.submit_sync(name="Ada")
    jobtape.drain_sync()
    assert jobtape[job].result == "Hello, Ada"
    assert jobtape.sync_client.get(f"/jobs/{job.id}").json()["state"] == "succeeded"
    assert jobtape.settings.max_result == 100
"""


def run_pytest(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest with the plugin, also in an environment that was made before the plugin had an entry point."""
    installed = any(each.value == "jobtape.pytest_plugin" for each in entry_points(group="pytest11"))
    load = () if installed else ("-p", "jobtape.pytest_plugin")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *load, *arguments, timeout=120)


def test_fixture_is_in_memory_or_on_a_broker(pytester: pytest.Pytester, broker_url: str) -> None:
    pytester.makepyfile(TEST)
    pytester.makeconftest(
        f"import pytest\n@pytest.fixture(scope='session')\ndef jobtape_broker_url():\n    return {broker_url!r}\n"
    )
    run_pytest(pytester).assert_outcomes(passed=1)
    run_pytest(pytester, "--jobtape=broker").assert_outcomes(passed=1)


def test_fixture_takes_job_types_of_ini_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        some_jobs="from jobtape import job\n@job('hello')\ndef hello() -> str:\n    return 'Hello'\n",
        test_it="""
            import some_jobs

            def test_hello(jobtape):
                job = some_jobs.hello.submit_sync()
                jobtape.drain_sync()
                assert jobtape[job].result == "Hello"
        """,
    )
    pytester.makeini("[pytest]\njobtape_jobs = some_jobs\npythonpath = .\n")
    run_pytest(pytester).assert_outcomes(passed=1)


def test_fixture_says_what_is_missing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    without = TEST.replace("@pytest.mark.jobtape(hello, max_result=100)", "")
    pytester.makepyfile(test_without=without, test_with=TEST)
    result = run_pytest(pytester, "--jobtape=broker")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        ["*has no job types: mark the test with @pytest.mark.jobtape(hello)*"], consecutive=False
    )
    result.stdout.fnmatch_lines(["*needs a RabbitMQ: set RABBITMQ_URL*"])
