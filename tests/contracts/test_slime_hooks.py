"""slime's own contract tests on this repository's hooks (contract)."""

import pytest

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    "file, hooks",
    [
        (
            "path_loading",
            {
                "CUSTOM_RM_PATH": "self_reward_rm.reward",
                "DYNAMIC_SAMPLING_FILTER_PATH": "self_reward_rm.keep_informative",
            },
        ),
        ("runtime_hook", {"CUSTOM_REWARD_POST_PROCESS_PATH": "self_reward_rm.post_process"}),
    ],
)
def test_slimes_contract_test_accepts_the_hooks(slime, file, hooks):
    path = slime.dir / "tests" / "plugin_contracts" / f"test_plugin_{file}_contracts.py"
    chosen = {f"SLIME_CONTRACT_{key}": hook for key, hook in hooks.items()}
    done = slime.run("-m", "pytest", "-q", "-p", "no:cacheprovider", path, cwd=slime.dir, **chosen)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
