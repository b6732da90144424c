# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] lang="en"
# # A small computing pipeline
#
# Two components, **add** and **multiply**, become one pipeline that computes (a + b) × c. You write them here as plain
# Python functions; Kubeflow runs each in a container of its own and hands the result of the first to the second.

# %% [markdown] lang="ko"
# # 간단한 계산 파이프라인
#
# **add**와 **multiply** 두 컴포넌트로 (a + b) × c 를 계산하는 파이프라인을 만듭니다.
# 여기서는 평범한 Python 함수로 작성합니다.
# Kubeflow는 각 컴포넌트를 별도의 컨테이너에서 실행하여 첫 번째 결과를 두 번째로 넘겨줍니다.

# %% [markdown] lang="en"
# ## 1. Import
#
# `kfp` is the SDK of Kubeflow Pipelines. `kubeflow_login` is the small file beside this notebook; it logs in for you.

# %% [markdown] lang="ko"
# ## 1. 라이브러리 가져오기
#
# `kfp`는 Kubeflow Pipelines의 SDK입니다. `kubeflow_login`은 이 노트북 옆에 있는 작은 파일로, 로그인을 대신해 줍니다.

# %% tags=["import"]
import os
from getpass import getpass

from kfp import compiler, dsl
from kubeflow_login import kubeflow_client

# %% [markdown] lang="en"
# ## 2. Your Kubeflow
#
# Where Kubeflow is and who you are. The password is asked for and is not kept in this notebook.

# %% [markdown] lang="ko"
# ## 2. 환경 변수 설정
#
# Kubeflow의 주소와 사용자 계정입니다. 비밀번호는 실행할 때 입력하며 노트북에 저장되지 않습니다.

# %% tags=["environment"]
KUBEFLOW_HOST = "{{ host }}"
KUBEFLOW_USERNAME = "{{ email }}"
KUBEFLOW_PASSWORD = os.environ.get("KUBEFLOW_PASSWORD") or getpass("KUBEFLOW_PASSWORD: ")

client = kubeflow_client(KUBEFLOW_HOST, KUBEFLOW_USERNAME, KUBEFLOW_PASSWORD)

# %% [markdown] lang="en"
# ## 3. Components
#
# ### 3-1. Add
#
# The decorator turns a function into a component. `base_image` is the class image: everything the function needs is in
# it, so that nothing is downloaded when it runs.

# %% [markdown] lang="ko"
# ## 3. 컴포넌트
#
# ### 3-1. Add
#
# 데코레이터가 함수를 컴포넌트로 바꿉니다. `base_image`는 수업용 이미지이며,
# 필요한 것이 모두 들어 있어 실행할 때 아무것도 내려받지 않습니다.


# %% tags=["add"]
@dsl.component(base_image="{{ image }}", install_kfp_package=False)
def add(a: int, b: int) -> int:
    return a + b


# %% [markdown] lang="en"
# ### 3-2. Multiply

# %% [markdown] lang="ko"
# ### 3-2. Multiply


# %% tags=["multiply"]
@dsl.component(base_image="{{ image }}", install_kfp_package=False)
def multiply(a: int, b: int) -> int:
    return a * b


# %% [markdown] lang="en"
# ## 4. Pipeline
#
# `added.output` is not a number yet: it says that multiply waits for add and takes its result.

# %% [markdown] lang="ko"
# ## 4. 파이프라인
#
# `added.output`은 아직 숫자가 아닙니다. multiply가 add를 기다렸다가 그 결과를 받는다는 뜻입니다.


# %% tags=["pipeline"]
@dsl.pipeline(name="math_pipeline", description="(a + b) * c")
def math_pipeline(a: int = 1, b: int = 2, c: int = 3):
    added = add(a=a, b=b)
    multiply(a=added.output, b=c)


# %% [markdown] lang="en"
# ## 5. Compile
#
# The compiler writes the pipeline as YAML. That file is all that Kubeflow needs: open `math_pipeline.yaml` beside this
# notebook.

# %% [markdown] lang="ko"
# ## 5. 컴파일
#
# 컴파일러가 파이프라인을 YAML로 저장합니다. Kubeflow에는 이 파일만 있으면 됩니다.
# 노트북 옆의 `math_pipeline.yaml`을 열어 보세요.

# %% tags=["compile"]
compiler.Compiler().compile(math_pipeline, "math_pipeline.yaml")

# %% [markdown] lang="en"
# ## 6. Run
#
# Runs are kept together in an experiment. With a = 1, b = 2, c = 3 multiply's output is 9. Results are not taken from
# the cache of an earlier run, so that you see every component at work each time.

# %% [markdown] lang="ko"
# ## 6. 실행
#
# 실행(run)은 실험(experiment) 안에 모입니다. a = 1, b = 2, c = 3 이면 multiply의 출력은 9입니다.
# 이전 실행의 캐시를 쓰지 않으므로 매번 모든 컴포넌트가 실제로 실행됩니다.

# %% tags=["run"]
experiment = client.create_experiment("math_pipeline test experiment")
run = client.create_run_from_pipeline_package(
    "math_pipeline.yaml",
    arguments={"a": 1, "b": 2, "c": 3},
    run_name="math_pipeline run",
    experiment_name="math_pipeline test experiment",
    enable_caching=False,
)
