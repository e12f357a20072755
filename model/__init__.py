"""The model: data sets, features, DIEN, training, distillation, artifact, scorer. Knows no HTTP and no store."""
