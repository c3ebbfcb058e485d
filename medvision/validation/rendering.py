"""The verdict for people: as text, and as a section of an HTML report that a clinician understands."""

from __future__ import annotations

from medvision.records import Verdict

_STATES = {"passed": "PASSED", "failed": "FAILED", "insufficient_evidence": "INSUFFICIENT EVIDENCE"}
_MEANINGS = {
    "passed": "The model met every rule of this policy on images that it had never seen.",
    "failed": "The model did not meet every rule. It must not be used for patients.",
    "insufficient_evidence": "No rule speaks against the model, but the test cases are too few to show that it is good "
    "enough. It must not be used for patients until there are more.",
}


def render_text(verdict: Verdict) -> str:
    """Return the verdict as text: the decision, then every rule with what was found and what would mend it."""
    n_open = sum(not outcome.passed for outcome in verdict.outcomes)
    summary = "every rule is met" if verdict.passed else f"{n_open} of {len(verdict.outcomes)} rules are not met"
    lines = [
        f"{verdict.model}: {_STATES[verdict.state]} under policy {verdict.policy}, {summary}",
        f"grade: {verdict.grade}; {_test_set(verdict)}",
        "",
    ]
    for outcome in verdict.outcomes:
        lines.append(f"  {_STATES[outcome.state] if not outcome.passed else 'passed'}  {outcome.message}")
        lines += [f"          -> {outcome.remedy}"] if outcome.remedy else []
    lines += ["", f"  made at       {verdict.made_at}", f"  model package {verdict.package_digest}"]
    lines += [f"  test set      {verdict.test_fingerprint}", f"  predictions   {verdict.predictions_sha256}"]
    lines += [f"  policy        {verdict.policy_fingerprint}", f"  evaluation    {verdict.evaluation_fingerprint}"]
    return "\n".join(lines) + "\n"


def render_html(verdict: Verdict) -> str:
    """Return the verdict as a <section> of an HTML page, without styles; every text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_SECTION).render(
        verdict=verdict,
        state=_STATES[verdict.state].lower(),
        meaning=_MEANINGS[verdict.state],
        test_set=_test_set(verdict),
        words={state: words.lower() for state, words in _STATES.items()},
    )


def _test_set(verdict: Verdict) -> str:
    patients = f"{verdict.n_patients:,} patients" if verdict.n_patients is not None else "patients unknown"
    looks = "once" if verdict.looks == 1 else f"{verdict.looks} times"
    packages = "1 model package" if verdict.models_seen == 1 else f"{verdict.models_seen} model packages"
    return f"{verdict.n:,} test images, {patients}; the test set was opened {looks}, for {packages}"


_SECTION = """\
<section class="{{ verdict.state }}" id="verdict">
  <h2>Medical validation: {{ state }}</h2>
  <p>{{ meaning }}</p>
  <dl>
    <dt>Policy</dt><dd>{{ verdict.policy }}</dd>
    <dt>Grade</dt><dd>{{ verdict.grade }}</dd>
    <dt>Test set</dt><dd>{{ test_set }}. The more often it is opened, the less its figures say of new patients.</dd>
    <dt>Made at</dt><dd>{{ verdict.made_at }}</dd>
  </dl>
  <table>
    <thead><tr><th>Result</th><th>What was asked and found</th><th>What would mend it</th></tr></thead>
    <tbody>
    {% for outcome in verdict.outcomes %}
      <tr class="rule-{{ outcome.state }}">
        <td>{{ words[outcome.state] }}</td><td>{{ outcome.message }}</td><td>{{ outcome.remedy }}</td>
      </tr>
    {% endfor %}
    </tbody>
  </table>
  <p>Of 100 such intervals ("95 % CI") about 95 hold the true figure for patients like those of the test set. A lower
  bound is the figure that the model reaches at least, with 95 % confidence.</p>
  <p>Fingerprints: model package <code>{{ verdict.package_digest }}</code>, test set
  <code>{{ verdict.test_fingerprint }}</code>, policy <code>{{ verdict.policy_fingerprint }}</code>.</p>
</section>
"""
