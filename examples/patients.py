"""Several images of a patient count as one: added or removed together, on one side of the split, clipped
once. `python examples/patients.py` (half a minute)."""

import numpy as np

import sfumato as sf

digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]
test_images, test_labels = digits.test[np.arange(len(digits.test))]

# Say that the images came in pairs: each patient has up to three of the same class.
order = np.argsort(labels, kind="stable")
images, labels = images[order], labels[order]
patients = np.array([f"p{labels[k]}{k // 3:04d}" for k in range(len(labels))])
print(f"{len(images):,} images of {len(set(patients)):,} patients")

model = sf.DPImageClassifier(epsilon=8.0, images_per_group=3)
model.fit(images, labels, groups=patients)
print(f"accuracy {100 * model.score(test_images, test_labels):.1f} %")
print(f"epsilon {model.epsilon_:.3f} for {model.plan_.whole_unit}, n = {model.plan_.n:,}")
model.save("patients.safetensors")

alone = sf.DPImageClassifier(epsilon=8.0).fit(images, labels)
print(f"per image instead: {100 * alone.score(test_images, test_labels):.1f} %, but then a patient")
print(f"with three images has about three times the epsilon: {3 * alone.epsilon_:.0f}")
