//! Declared runs: plan, dispatch, job states, results.
