# SPDX-License-Identifier: Apache-2.0
"""Ten rounds of Lloyd's k-means with FAISS and scikit-learn: same points, same first centroids.

Both move a centroid that loses its last member (FAISS splits a large cluster, scikit-learn takes the farthest point).
"""
import sys

import numpy as np

from peer import main, peer

ROUNDS = 10


def objective(centroids, head, task):
    """Sum of squared distances of all points to the nearest of the final centroids, in fp64."""
    points = head.fp32("points")[: head.tokens].astype(np.float64)
    centroids = np.asarray(centroids, dtype=np.float64)
    norms = (centroids**2).sum(axis=1)
    total = 0.0
    for first in range(0, len(points), 4096):
        part = points[first:first + 4096]
        total += ((part**2).sum(axis=1) + (norms - 2 * part @ centroids.T).min(axis=1)).sum()
    return {"objective": float(total)}


def start_of(head, task):
    if task["clusters"] > head.tokens // 4:
        raise ValueError("too few points for so many clusters")
    return head.fp32("points"), head.start(task["clusters"], task.get("seed", 0))


@peer("FAISS k-means", check=objective)
def faiss_kmeans(head, task):
    import faiss

    points, start = start_of(head, task)

    def run():
        # Its default trains on 256 points per centroid at most: here on all.
        kmeans = faiss.Kmeans(head.dim, len(start), niter=ROUNDS, min_points_per_centroid=1,
                              max_points_per_centroid=len(points), seed=1)
        kmeans.train(points, init_centroids=start)
        return kmeans.centroids

    return run


@peer("scikit-learn k-means (Lloyd)", check=objective)
def sklearn_kmeans(head, task):
    import warnings

    from sklearn.cluster import KMeans

    warnings.filterwarnings("ignore")  # that ten rounds did not converge
    points, start = start_of(head, task)

    def run():
        kmeans = KMeans(len(start), init=start, n_init=1, max_iter=ROUNDS, tol=0, algorithm="lloyd")
        return kmeans.fit(points).cluster_centers_

    return run


def versions():
    found = {"numpy": np.__version__}
    if "faiss" in sys.modules:
        faiss = sys.modules["faiss"]
        found["faiss"] = faiss.__version__
        found["faiss built for"] = getattr(faiss, "get_compile_options", lambda: "?")().strip()
    if "sklearn" in sys.modules:
        found["scikit-learn"] = sys.modules["sklearn"].__version__
    return found


if __name__ == "__main__":
    main(versions, clusters=1000, min_seconds=0.2)
