"""The model card as the Hugging Face hub wants it: metadata in front, the privacy statement among them."""

import json

from sfumato.core import typed_json
from sfumato.report.accuracy import total
from sfumato.report.card import model_card
from sfumato.report.facts import RunFacts
from sfumato.report.finding_measures import mean_areas
from sfumato.report.measures import balanced_accuracy


def hub_card(facts: RunFacts) -> str:
    """README.md: JSON is YAML, so names from outside cannot break out of their place."""
    plan, spent = facts.plan, facts.spent
    kind = "not-private" if facts.not_private else "differential-privacy"
    front: dict[str, object] = {
        "library_name": "sfumato",
        "pipeline_tag": "image-classification",
        "tags": [kind, "image-classification", "jax"],
        "differential_privacy": {
            "epsilon": typed_json.plain(spent.epsilon),
            "delta": spent.delta,
            "promised_epsilon": typed_json.plain(plan.epsilon),
            "relation": plan.relation,
            "unit": plan.whole_unit,
            "training_units": plan.n,
            "void": facts.insecure or bool(facts.not_private),
            "not_covered": "evaluation images; see the text",
        },
    }
    if facts.evaluation is not None:
        values = {
            "accuracy": total(facts.evaluation).value,
            "balanced_accuracy": balanced_accuracy(facts.evaluation.confusion),
        }
        if facts.evaluation.findings:
            values = {"roc_auc": mean_areas(facts.evaluation)[0]}
        front["model-index"] = [
            {
                "name": plan.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "name": plan.name,
                            "type": "private",
                            "split": facts.evaluation.split,
                        },
                        "metrics": [
                            {"type": name, "value": value}
                            for name, value in values.items()
                            if value is not None
                        ],
                    }
                ],
            }
        ]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=True)}" for name, value in front.items()]
    use = (
        "## Use\n\n```python\nimport sfumato as sf\n\n"
        'model = sf.load("PATH/OF/THIS/FOLDER")\nmodel.predict_proba("image.png")\n```\n'
    )
    return "\n".join(["---", *lines, "---", "", model_card(facts), use])
