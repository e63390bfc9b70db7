"""Numbers per token beside log-probs, which some objectives read: their names in `GroupLogps.dense`.

An objective says which it reads (`Part.dense`); the step has them computed (`train/beside.py`), those of the policy
inside its forward (`engine/token_terms.py`), and hands them over in the policy's `GroupLogps`.
"""

from __future__ import annotations

REFERENCE_KL = "reference_kl"
"""KL(reference || policy) of the whole next-token distribution, [B, K, T], with gradient to the policy."""

TOKEN_REWARD = "token_reward"
"""log-prob of the token under a token-level reward model minus that under the reference, [B, K, T], no gradient."""

STUDENT_LOGPS = "student_logps"
"""Log-probs of the teacher's k likeliest tokens under the policy, and of all other tokens together,
[B, K, T, k + 1], with gradient."""

TEACHER_LOGPS = "teacher_logps"
"""The same under the teacher, no gradient."""

CONTRAST_LOGPS = "contrast_logps"
"""The same, for the same tokens, under the model that the teacher is contrasted with, no gradient."""

GAINED_LOGPS = "gained_logps"
"""Log-prob of the token under the softmax of the policy's logits minus those it has where the prompt has no history
(`views.without_history`), [B, K, T], with gradient through both."""

OF_TEACHER = (TEACHER_LOGPS, STUDENT_LOGPS)
OF_CONTRASTED_TEACHER = (*OF_TEACHER, CONTRAST_LOGPS)
