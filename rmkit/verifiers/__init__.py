"""Checkable truth: what code can say of a completion, one verifier a file; the plug-in group `verifiers`.

A verifier is a frozen dataclass whose fields are its options. It gives a number per completion, or says why there is
none: a gold answer that is missing or cannot be read leaves a completion unscored, it never makes it wrong.

    verifier      the protocol; VerifierModel makes any of them a reward model
    answer_text   where a final answer stands in a text, and how answers are written alike
    process_pool  worker processes with a time limit that holds
    sandbox       one program under bubblewrap
"""
