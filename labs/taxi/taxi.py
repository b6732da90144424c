# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] lang="en"
# # Taxi fares with PyTorch
#
# What does a taxi ride in New York cost? Three components answer that: the first prepares a table of rides, the second
# trains a neural network on most of them, and the third measures it on the rest. You write them here as Python
# functions; Kubeflow runs each in a container of its own, and hands tables and model from one to the next.

# %% [markdown] lang="ko"
# # PyTorch로 택시 요금 예측
#
# 뉴욕에서 택시를 타면 요금이 얼마나 나올까요? 세 개의 컴포넌트가 차례로 답을 찾습니다.
# 첫 번째는 운행 기록 표를 준비하고, 두 번째는 그 대부분으로 신경망을 학습시키고, 세 번째는 나머지로 성능을 측정합니다.
# 여기서는 Python 함수로 작성합니다. Kubeflow는 각 컴포넌트를 별도의 컨테이너에서 실행하고,
# 표와 모델을 다음 컴포넌트로 넘겨줍니다.

# %% [markdown] lang="en"
# ## 1. Import
#
# `Dataset`, `Model` and `Metrics` are artifacts: files that lie in your bucket and that Kubeflow keeps account of. A
# component names those that it takes (`Input`) and those that it makes (`Output`). `HTML` and `Markdown` are artifacts
# to be looked at.

# %% [markdown] lang="ko"
# ## 1. 라이브러리 가져오기
#
# `Dataset`, `Model`, `Metrics`는 아티팩트입니다. 본인 버킷에 저장되고 Kubeflow가 이력을 관리하는 파일입니다.
# 컴포넌트는 받을 것(`Input`)과 만들 것(`Output`)을 밝힙니다. `HTML`과 `Markdown`은 눈으로 보기 위한 아티팩트입니다.

# %% tags=["import"]
import os
from getpass import getpass
from pathlib import Path
from typing import NamedTuple

from kfp import compiler, components, dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output
from kubeflow_login import kubeflow_client

# %% [markdown] lang="en"
# ## 2. Your Kubeflow
#
# Where Kubeflow is and who you are; the password is asked for and is not kept in this notebook.
#
# The rides lie in your bucket. Set `DATA_URL` to the address of a CSV with the same columns, such as Kaggle's *New York
# City Taxi Fare Prediction*, to learn from that instead; your pods must be allowed to reach it.
#
# Training runs on the CPU. Set `ACCELERATOR` to the name of a GPU resource that your namespace may use, such as
# `nvidia.com/gpu`, to train there; the class image must hold a PyTorch for it.

# %% [markdown] lang="ko"
# ## 2. 환경 변수 설정
#
# Kubeflow의 주소와 사용자 계정입니다. 비밀번호는 실행할 때 입력하며 노트북에 저장되지 않습니다.
#
# 운행 기록은 본인 버킷에 있습니다. `DATA_URL`에 Kaggle의 *New York City Taxi Fare Prediction*처럼
# 같은 열을 가진 CSV의 주소를 넣으면 그 데이터로 학습합니다. 단, 파드가 그 주소에 접근할 수 있어야 합니다.
#
# 학습은 CPU에서 실행됩니다. `ACCELERATOR`에 `nvidia.com/gpu`처럼 네임스페이스에서 쓸 수 있는 GPU 리소스의 이름을 넣으면
# GPU에서 학습합니다. 단, 수업용 이미지에 GPU용 PyTorch가 있어야 합니다.

# %% tags=["environment"]
KUBEFLOW_HOST = "{{ host }}"
KUBEFLOW_USERNAME = "{{ email }}"
KUBEFLOW_PASSWORD = os.environ.get("KUBEFLOW_PASSWORD") or getpass("KUBEFLOW_PASSWORD: ")

BUCKET = os.environ["CLASS_BUCKET"]
DATA_URL = ""
ACCELERATOR = ""

client = kubeflow_client(KUBEFLOW_HOST, KUBEFLOW_USERNAME, KUBEFLOW_PASSWORD)

# %% [markdown] lang="en"
# ## 3. Components
#
# Each component is written to a YAML file of its own in this folder, from which any pipeline can load it.

# %% [markdown] lang="ko"
# ## 3. 컴포넌트
#
# 각 컴포넌트를 이 폴더에 YAML 파일로 저장합니다. 저장한 컴포넌트는 어느 파이프라인에서나 불러올 수 있습니다.

# %% tags=["folder"]
FOLDER = Path("taxi_components")
FOLDER.mkdir(exist_ok=True)

# %% [markdown] lang="en"
# ### 3-1. NYC Taxi Fare Dataset
#
# Rides that make no sense are left out (the real data has some), and the time of the pickup becomes what a fare can
# depend on: the hour in New York, the half of the day, the day of the week. A fifth of the rides is kept for testing.

# %% [markdown] lang="ko"
# ### 3-1. NYC Taxi Fare Dataset
#
# 말이 되지 않는 기록은 버립니다(실제 데이터에는 그런 기록이 있습니다).
# 승차 시각은 요금에 영향을 줄 수 있는 값, 즉 뉴욕 시각의 시, 오전/오후, 요일로 바꿉니다.
# 전체의 5분의 1은 평가용으로 남겨 둡니다.


# %% tags=["dataset"]
@dsl.component(base_image="{{ image }}", install_kfp_package=False)
def nyc_taxi_fare_dataset(
    rides: Input[Dataset],
    train: Output[Dataset],
    test: Output[Dataset],
    url: str = "",
    rows: int = 20_000,
) -> NamedTuple("Rows", [("train_rows", int), ("test_rows", int)]):
    import pandas as pd

    places = ["pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"]
    columns = ["fare_amount", "pickup_datetime", *places, "passenger_count"]
    table = pd.read_csv(url or rides.path, usecols=columns, nrows=rows).dropna()

    table = table[table.fare_amount.between(0.01, 200) & table.passenger_count.between(1, 6)]
    for place in places:
        low, high = (-75, -73) if place.endswith("longitude") else (40, 42)
        table = table[table[place].between(low, high)]

    pickup = pd.to_datetime(table.pickup_datetime, format="%Y-%m-%d %H:%M:%S UTC", utc=True)
    pickup = pickup.dt.tz_convert("America/New_York")
    table["hour"] = pickup.dt.hour
    table["pm"] = (pickup.dt.hour >= 12).astype(int)
    table["weekday"] = pickup.dt.weekday

    testing = table.sample(frac=0.2, random_state=1)
    training = table.drop(testing.index)
    training.to_csv(train.path, index=False)
    testing.to_csv(test.path, index=False)
    for made, part in (train, training), (test, testing):
        made.metadata["rows"] = len(part)
        made.metadata["source"] = url or rides.uri
    print(training.describe().round(2).to_string())
    return len(training), len(testing)


compiler.Compiler().compile(nyc_taxi_fare_dataset, str(FOLDER / "nyc_taxi_fare_dataset.yaml"))

# %% [markdown] lang="en"
# ### 3-2. Train Pytorch Tabular Model
#
# The network takes two kinds of features. Hour, half of the day and weekday are **categories**: each gets an embedding,
# a few numbers that are learned for every hour and every day. Places, passengers and distance are **continuous**: they
# go through a batch norm, which brings them to the same scale. The distance between both places is not in the table; it
# is the haversine formula on the globe, part of the model.
#
# The loss of each epoch is drawn as a curve, and the trained model is saved.

# %% [markdown] lang="ko"
# ### 3-2. Train Pytorch Tabular Model
#
# 신경망은 두 종류의 특성을 받습니다. 시, 오전/오후, 요일은 **범주형**입니다.
# 범주마다 임베딩, 즉 시와 요일별로 학습되는 몇 개의 숫자를 갖습니다.
# 위치, 승객 수, 거리는 **연속형**이며, 배치 정규화를 거쳐 같은 크기로 맞춰집니다.
# 두 지점 사이의 거리는 표에 없으므로 지구 위의 거리를 구하는 하버사인 공식으로 모델 안에서 계산합니다.
#
# 에포크마다 손실을 곡선으로 그리고, 학습된 모델을 저장합니다.


# %% tags=["train"]
@dsl.component(base_image="{{ image }}", install_kfp_package=False)
def train_pytorch_tabular_model(
    train: Input[Dataset],
    model: Output[Model],
    loss_curve: Output[HTML],
    epochs: int = 30,
    batch_size: int = 256,
    learning_rate: float = 0.01,
) -> NamedTuple("Trained", [("losses", list)]):
    from pathlib import Path

    import pandas as pd
    import torch
    from torch import nn

    torch.manual_seed(1)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def haversine_km(longitude, latitude, to_longitude, to_latitude):
        a, b = torch.deg2rad(latitude), torch.deg2rad(to_latitude)
        turned = torch.deg2rad(to_longitude - longitude)
        half = torch.sin((b - a) / 2) ** 2 + torch.cos(a) * torch.cos(b) * torch.sin(turned / 2) ** 2
        return 2 * 6371.0 * torch.asin(torch.sqrt(half))

    class TabularModel(nn.Module):
        def __init__(self, sizes, layers=(64, 32)):
            super().__init__()
            self.embeddings = nn.ModuleList([nn.Embedding(n, min(50, (n + 1) // 2)) for n in sizes])
            self.normalise = nn.BatchNorm1d(6)
            width, parts = sum(e.embedding_dim for e in self.embeddings) + 6, []
            for size in layers:
                parts += [nn.Linear(width, size), nn.ReLU(), nn.BatchNorm1d(size)]
                width = size
            self.layers = nn.Sequential(*parts, nn.Linear(width, 1))

        def forward(self, categories, continuous):
            distance = haversine_km(*continuous.unbind(1)[:4]).unsqueeze(1)
            embedded = [embed(categories[:, i]) for i, embed in enumerate(self.embeddings)]
            numbers = self.normalise(torch.cat([continuous, distance], dim=1))
            return self.layers(torch.cat([*embedded, numbers], dim=1)).squeeze(1)

    table = pd.read_csv(train.path)
    places = ["pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"]
    categories = torch.tensor(table[["hour", "pm", "weekday"]].values, device=device)
    continuous = torch.tensor(table[[*places, "passenger_count"]].values, dtype=torch.float32, device=device)
    fares = torch.tensor(table["fare_amount"].values, dtype=torch.float32, device=device)

    network = TabularModel(sizes=(24, 2, 7)).to(device)
    batches = -(-len(fares) // batch_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    losses = []
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(fares), device=device).chunk(batches):
            loss = nn.functional.mse_loss(network(categories[batch], continuous[batch]), fares[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        losses.append(round((total / len(fares)) ** 0.5, 4))
        print(f"epoch {epoch + 1}: off by {losses[-1]:.2f} dollars (RMSE)", flush=True)

    # Traced: who loads the model needs none of the code above.
    network.cpu().eval()
    torch.jit.trace(network, (categories[:2].cpu(), continuous[:2].cpu())).save(model.path)
    model.metadata["framework"] = f"PyTorch {torch.__version__}"
    model.metadata["trained_on"] = device

    top, right = max(losses), max(1, epochs - 1)
    points = " ".join(f"{60 + 560 * i / right:.1f},{230 - 210 * loss / top:.1f}" for i, loss in enumerate(losses))
    Path(loss_curve.path).write_text(
        f"""
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 270" font-family="sans-serif" font-size="13">
<rect width="640" height="270" fill="white"/>
<path d="M60 20V230H620" fill="none" stroke="gray"/>
<polyline points="{points}" fill="none" stroke="#1a73e8" stroke-width="2"/>
<text x="52" y="26" text-anchor="end">${top:.2f}</text><text x="52" y="234" text-anchor="end">$0</text>
<text x="60" y="250">epoch 1</text><text x="620" y="250" text-anchor="end">epoch {epochs}</text>
<text x="340" y="16" text-anchor="middle">Training loss (RMSE): ${losses[-1]:.2f} after the last epoch</text>
</svg>""".strip()
    )
    return (losses,)


compiler.Compiler().compile(train_pytorch_tabular_model, str(FOLDER / "train_pytorch_tabular_model.yaml"))

# %% [markdown] lang="en"
# ### 3-3. Evaluate Pytorch Tabular Model
#
# The rides that were kept back show what the model is worth: by how many dollars it is off (root mean squared error),
# and the first 20 predictions beside the true fares.

# %% [markdown] lang="ko"
# ### 3-3. Evaluate Pytorch Tabular Model
#
# 남겨 둔 운행 기록으로 모델의 성능을 측정합니다.
# 예측이 실제 요금과 몇 달러나 차이 나는지(RMSE, 평균 제곱근 오차) 구하고,
# 처음 20개의 예측을 실제 요금과 나란히 보여 줍니다.


# %% tags=["evaluate"]
@dsl.component(base_image="{{ image }}", install_kfp_package=False)
def evaluate_pytorch_tabular_model(
    test: Input[Dataset],
    model: Input[Model],
    metrics: Output[Metrics],
    first_predictions: Output[Markdown],
) -> NamedTuple("Evaluated", [("rmse", float), ("predictions", list)]):
    from pathlib import Path

    import pandas as pd
    import torch

    torch.set_num_threads(1)
    table = pd.read_csv(test.path)
    places = ["pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"]
    categories = torch.tensor(table[["hour", "pm", "weekday"]].values)
    continuous = torch.tensor(table[[*places, "passenger_count"]].values, dtype=torch.float32)
    fares = torch.tensor(table["fare_amount"].values, dtype=torch.float32)

    network = torch.jit.load(model.path)
    with torch.no_grad():
        predicted = network(categories, continuous)
    rmse = ((predicted - fares) ** 2).mean().sqrt().item()
    metrics.log_metric("rmse", rmse)

    pairs = torch.stack([fares, predicted], dim=1)[:20].tolist()
    predictions = [[round(fare, 2), round(guess, 2)] for fare, guess in pairs]
    lines = [f"RMSE: {rmse:.3f} dollars on {len(table)} rides", ""]
    lines += ["| ride | fare | predicted | off by |", "| ---: | ---: | ---: | ---: |"]
    for ride, (fare, guess) in enumerate(predictions, start=1):
        lines.append(f"| {ride} | {fare:.2f} | {guess:.2f} | {guess - fare:+.2f} |")
    Path(first_predictions.path).write_text("\n".join(lines))
    print(*lines, sep="\n")
    return rmse, predictions


compiler.Compiler().compile(evaluate_pytorch_tabular_model, str(FOLDER / "evaluate_pytorch_tabular_model.yaml"))

# %% [markdown] lang="en"
# ## 4. Pipeline
#
# ### 4-1. Load the components
#
# From here on the functions above are not needed: their YAML files are all that a pipeline is made of.

# %% [markdown] lang="ko"
# ## 4. 파이프라인
#
# ### 4-1. 컴포넌트 불러오기
#
# 이제 위의 함수는 필요 없습니다. 파이프라인은 YAML 파일만으로 만들 수 있습니다.

# %% tags=["load"]
dataset_op = components.load_component_from_file(str(FOLDER / "nyc_taxi_fare_dataset.yaml"))
train_op = components.load_component_from_file(str(FOLDER / "train_pytorch_tabular_model.yaml"))
evaluate_op = components.load_component_from_file(str(FOLDER / "evaluate_pytorch_tabular_model.yaml"))

# %% [markdown] lang="en"
# ### 4-2. Pipeline
#
# The importer makes the CSV in your bucket an artifact, so that the lineage of the model begins with it. Each task says
# how much of a machine it needs: what it asks for it gets, and what it is limited to it cannot exceed.

# %% [markdown] lang="ko"
# ### 4-2. 파이프라인
#
# importer는 버킷에 있는 CSV를 아티팩트로 등록합니다. 그래서 모델의 계보(lineage)가 이 파일에서 시작됩니다.
# 각 태스크에는 필요한 자원을 적습니다. 요청(request)한 만큼은 보장되고, 제한(limit)은 넘을 수 없습니다.

# %% tags=["pipeline"]
PIPELINE = "nyc_taxi_pytorch_pipeline_w_gpu" if ACCELERATOR else "nyc_taxi_pytorch_pipeline_w_cpu"


@dsl.pipeline(name=PIPELINE, description="NYC taxi fares with PyTorch")
def taxi_pipeline(rows: int = 20_000, epochs: int = 30, batch_size: int = 256, learning_rate: float = 0.01):
    rides = dsl.importer(artifact_uri=f"s3://{BUCKET}/data/nyc_taxi_fares.csv", artifact_class=Dataset)
    dataset = dataset_op(rides=rides.output, url=DATA_URL, rows=rows)
    trained = train_op(
        train=dataset.outputs["train"], epochs=epochs, batch_size=batch_size, learning_rate=learning_rate
    )
    evaluated = evaluate_op(test=dataset.outputs["test"], model=trained.outputs["model"])

    dataset.set_display_name("NYC Taxi Fare Dataset")
    trained.set_display_name("Train Pytorch Tabular Model")
    evaluated.set_display_name("Evaluate Pytorch Tabular Model")
    for task in (dataset, trained, evaluated):
        task.set_cpu_request("100m").set_cpu_limit("1")
        task.set_memory_request("256Mi").set_memory_limit("512Mi")
    if ACCELERATOR:
        trained.set_accelerator_type(ACCELERATOR).set_accelerator_limit(1)
        # A GPU's libraries alone take more than the CPU needs.
        trained.set_memory_request("4Gi").set_memory_limit("4Gi")


compiler.Compiler().compile(taxi_pipeline, f"{PIPELINE}.yaml")

# %% [markdown] lang="en"
# ### 4-3. Run
#
# Thirty epochs take about ten seconds. When the run has ended, look at what each component took and made: the table of
# rides, the loss curve and the model, the RMSE and the predictions.

# %% [markdown] lang="ko"
# ### 4-3. 실행
#
# 30 에포크 학습은 10초쯤 걸립니다. 실행이 끝나면 각 컴포넌트가 무엇을 받아 무엇을 만들었는지 살펴보세요.
# 운행 기록 표, 손실 곡선과 모델, RMSE와 예측 결과를 볼 수 있습니다.

# %% tags=["run"]
run = client.create_run_from_pipeline_package(
    f"{PIPELINE}.yaml",
    arguments={"epochs": 30},
    run_name=f"{PIPELINE} run",
    experiment_name="nyc_taxi_pytorch_pipeline experiment",
    enable_caching=False,
)
