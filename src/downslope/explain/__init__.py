"""Why runs did what they did: curvature measured, theory applied, findings told."""
