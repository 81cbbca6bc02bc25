from rljax.envs import gymnax, wrappers
def make(env, **params):
    return wrappers.auto_reset(gymnax.from_id(env, **params)) if isinstance(env, str) else env
def build(env, num_envs, **params):
    return wrappers.batched(make(env, **params), num_envs)
def check_env(env): pass
