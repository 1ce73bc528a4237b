"""Who may do what: rules loaded from TOML, and one pure function that decides.

Rules of this room: no I/O, no clock, no DICOM parsing; a decision is a value and never an exception.
"""

from dicomward.policy.decision import AssociationDecision, Decision, Effect, Obligation
from dicomward.policy.evaluate import evaluate, evaluate_association
from dicomward.policy.families import command_sop_classes
from dicomward.policy.load import PolicyError, load_policy
from dicomward.policy.model import Policy, Problem, Rule, TimeWindow
from dicomward.policy.ready import default_policy_text, ready_policy_text
from dicomward.policy.request import AssociationRequest, IdentifierRequest, OperationRequest

__all__ = [
    "AssociationDecision",
    "AssociationRequest",
    "Decision",
    "Effect",
    "IdentifierRequest",
    "Obligation",
    "OperationRequest",
    "Policy",
    "PolicyError",
    "Problem",
    "Rule",
    "TimeWindow",
    "command_sop_classes",
    "default_policy_text",
    "evaluate",
    "evaluate_association",
    "load_policy",
    "ready_policy_text",
]
